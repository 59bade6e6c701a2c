// Every header of the GPU backend, and every published rule on it.
#include <matopt/cuda.cuh>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/published_rules.hpp>

template void matopt::add_published_rules(rule_registry<cuda_backend>&);

template class matopt::cuda::captured_step<matopt::any_optimizer<matopt::cuda_backend>>;
