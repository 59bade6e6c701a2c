// topk_bench.cpp on the GPU.
#include "topk_bench.cpp"
