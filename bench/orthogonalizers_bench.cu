// orthogonalizers_bench.cpp on the GPU.
#include "orthogonalizers_bench.cpp"
