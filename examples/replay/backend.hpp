// The backend that this translation unit's templates are instantiated for: the CPU's, or the GPU's where nvcc compiles.
// So cuda/rules_muon.cu is rules_muon.cpp once more.
#pragma once
#ifdef __CUDACC__
#include <matopt/cuda.cuh>
#else
#include <matopt/eigen.hpp>
#endif

namespace replay {

#ifdef __CUDACC__
using backend_here = matopt::cuda_backend;
#else
using backend_here = matopt::eigen_backend;
#endif

}  // namespace replay

// At the end of a rules_*.cpp: its family, in both element types.
#define REPLAY_INSTANTIATE_RULES(add_family)                   \
  template void add_family(rule_table<backend_here, double>&); \
  template void add_family(rule_table<backend_here, float>&)
