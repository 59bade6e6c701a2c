// steps_bench.cpp on the GPU.
#include "steps_bench.cpp"
