// cusolver: singular value decompositions of floats by NVIDIA's cuSOLVER, whose gesvdaStridedBatched is faster than the
// library's own from 65 columns on, for one matrix or for more than 16 (docs/benchmarks.md); link cusolver.
//
// It decomposes the Gram matrix: singular values below eps sigma_1 are noise, and so are the columns of U that belong
// to them. (gesvdp failed on some inputs that it had decomposed before, and gesvdj is slower and less exact. In double
// gesvda loses half of the digits of U, so that doubles are left to the library.) Errors: cuda_error.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cusolverDn.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <vector>

#include "error.cuh"
#include "svd_library.cuh"

namespace MATOPT_NAMESPACE::cuda {

class cusolver : public svd_library {
 public:
  cusolver() { check(cusolverDnCreate(&handle_), "cusolverDnCreate"); }
  cusolver(const cusolver&) = delete;
  cusolver& operator=(const cusolver&) = delete;
  ~cusolver() override { cusolverDnDestroy(handle_); }

  bool takes(const svd_problem& p) const override {
    return p.type == element_type::f32 && p.n > 64 && (p.batch == 1 || p.batch > 16);
  }

  // The routine's own memory, and a word for each matrix in which it reports.
  std::size_t workspace(const svd_problem& p) override {
    return aligned(sizeof(float) * static_cast<std::size_t>(scalars(p))) +
           aligned(sizeof(int) * static_cast<std::size_t>(p.batch));
  }
  void run(cudaStream_t stream, const svd_problem& p, std::byte* workspace) override {
    const int count = scalars(p), m = static_cast<int>(p.m), n = static_cast<int>(p.n);
    int* const reports = reinterpret_cast<int*>(workspace + aligned(sizeof(float) * static_cast<std::size_t>(count)));
    residuals_.resize(static_cast<std::size_t>(p.batch));
    check(cusolverDnSetStream(handle_, stream), "cusolverDnSetStream");
    check(cusolverDnSgesvdaStridedBatched(handle_, CUSOLVER_EIG_MODE_VECTOR, n, m, n, static_cast<const float*>(p.a), m,
                                          p.m * p.n, static_cast<float*>(p.s), p.n, static_cast<float*>(p.u), m,
                                          p.m * p.n, static_cast<float*>(p.v), n, p.n * p.n,
                                          reinterpret_cast<float*>(workspace), count, reports, residuals_.data(),
                                          static_cast<int>(p.batch)),
          "cusolverDnSgesvdaStridedBatched");
  }

 private:
  static void check(cusolverStatus_t status, const char* call,
                    std::source_location at = std::source_location::current()) {
    if (status != CUSOLVER_STATUS_SUCCESS)
      throw cuda_error(call, "cuSOLVER's status " + std::to_string(static_cast<int>(status)), at);
  }
  static constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

  int scalars(const svd_problem& p) {
    const float* const none = nullptr;
    const int m = static_cast<int>(p.m), n = static_cast<int>(p.n);
    int count = 0;
    check(cusolverDnSgesvdaStridedBatched_bufferSize(handle_, CUSOLVER_EIG_MODE_VECTOR, n, m, n, none, m, p.m * p.n,
                                                     none, p.n, none, m, p.m * p.n, none, n, p.n * p.n, &count,
                                                     static_cast<int>(p.batch)),
          "cusolverDnSgesvdaStridedBatched_bufferSize");
    return count;
  }

  cusolverDnHandle_t handle_ = nullptr;
  std::vector<double> residuals_;
};

}  // namespace MATOPT_NAMESPACE::cuda
