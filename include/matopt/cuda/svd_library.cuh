// svd_library: singular value decompositions by somebody else's routines, in place of the library's own.
//
//   matopt::cuda_backend gpu(stream, std::make_unique<matopt::cuda::cusolver>());        cuda/cusolver.cuh
//
// A backend that was given one asks it for every decomposition that it takes. Such routines may wait for the device, so
// that a step with them is no graph: captured_step refuses it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cuda_runtime.h>

#include <cstddef>

#include "../core/types.hpp"

namespace MATOPT_NAMESPACE::cuda {

// A batch of matrices A = U diag(s) V^T, m >= n, each array dense, column-major, one matrix after the other.
struct svd_problem {
  element_type type;  // f32 or f64
  index_t m, n, batch;
  void* a = nullptr;  // m x n; overwritten
  void* u = nullptr;  // m x n
  void* s = nullptr;  // n, in descending order
  void* v = nullptr;  // n x n
};

class svd_library {
 public:
  virtual ~svd_library() = default;
  // Whether it does these faster than the library itself.
  virtual bool takes(const svd_problem& shape) const = 0;
  // Bytes of device memory that `run` needs for it.
  virtual std::size_t workspace(const svd_problem& shape) = 0;
  virtual void run(cudaStream_t stream, const svd_problem& problem, std::byte* workspace) = 0;
};

}  // namespace MATOPT_NAMESPACE::cuda
