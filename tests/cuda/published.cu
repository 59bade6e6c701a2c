// One family of the published rules in one element type, on the GPU: CMakeLists.txt names them.
#include <matopt/published_rules.hpp>

#include "contract.cuh"

template void matopt::MATOPT_FAMILY(rule_registry<test::cuda_subject, types<MATOPT_SCALAR>>&);
