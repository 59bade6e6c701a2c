// products_bench.cpp on the GPU.
#include "products_bench.cpp"
