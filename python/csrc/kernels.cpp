// The library's kernels of products, if Highway is there. Sources of an extension have to lie in its own folder.
#include <matopt/simd/kernels.cpp>
