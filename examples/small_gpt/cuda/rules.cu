// One family of the published rules on the GPU; CMakeLists.txt names it.
#include <matopt/cuda.cuh>
#include <matopt/published_rules.hpp>

template void matopt::MATOPT_FAMILY(rule_registry<cuda_backend, types<float>>&);
