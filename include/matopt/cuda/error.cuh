// cuda_error: a failed call of CUDA or cuBLAS, with the verb that made it and where in the source that is.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <source_location>
#include <string>

#include "../core/error.hpp"
#include "../version.hpp"

namespace MATOPT_NAMESPACE {

class cuda_error : public error {
 public:
  cuda_error(const std::string& verb, const std::string& what, std::source_location at)
      : error("CUDA: " + verb + ": " + what + " (" + at.file_name() + ":" + std::to_string(at.line()) + ")") {}
};

namespace cuda {

inline void check(cudaError_t status, const char* verb, std::source_location at = std::source_location::current()) {
  if (status != cudaSuccess) throw cuda_error(verb, cudaGetErrorString(status), at);
}
inline void check(cublasStatus_t status, const char* verb, std::source_location at = std::source_location::current()) {
  if (status != CUBLAS_STATUS_SUCCESS) throw cuda_error(verb, cublasGetStatusString(status), at);
}
// After a launch: launches report nothing themselves.
inline void check_launch(const char* verb, std::source_location at = std::source_location::current()) {
  check(cudaGetLastError(), verb, at);
}

}  // namespace cuda
}  // namespace MATOPT_NAMESPACE
