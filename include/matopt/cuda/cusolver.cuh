// cusolver: singular value decompositions by NVIDIA's cuSOLVER; link cusolver. The constructor takes the routine:
//
//   gesvdp   by a polar decomposition, one matrix after the other
//   gesvdj   by Jacobi rotations, one matrix after the other
//   gesvda   by eigenvalues of the Gram matrix, all at once; loses small singular values
//
// Errors: cuda_error.
#pragma once
#include <cusolverDn.h>

#include <cstddef>
#include <string>
#include <vector>

#include "error.cuh"
#include "svd_library.cuh"

namespace MATOPT_NAMESPACE::cuda {

enum class svd_routine { gesvdp, gesvdj, gesvda };

class cusolver : public svd_library {
 public:
  explicit cusolver(svd_routine routine = svd_routine::gesvdp) : routine_(routine) {
    check(cusolverDnCreate(&handle_), "cusolverDnCreate");
    check(cusolverDnCreateParams(&parameters_), "cusolverDnCreateParams");
    check(cusolverDnCreateGesvdjInfo(&jacobi_), "cusolverDnCreateGesvdjInfo");
  }
  cusolver(const cusolver&) = delete;
  cusolver& operator=(const cusolver&) = delete;
  ~cusolver() override {
    cusolverDnDestroyGesvdjInfo(jacobi_);
    cusolverDnDestroyParams(parameters_);
    cusolverDnDestroy(handle_);
  }

  bool takes(const svd_problem& p) const override { return p.n > 64; }

  // The routine's own memory, and a word for each matrix in which it reports.
  std::size_t workspace(const svd_problem& p) override {
    const std::size_t device = p.type == element_type::f64 ? plan<double>(p) : plan<float>(p);
    return aligned(device) + aligned(static_cast<std::size_t>(p.batch) * sizeof(int));
  }
  void run(cudaStream_t stream, const svd_problem& p, std::byte* workspace) override {
    check(cusolverDnSetStream(handle_, stream), "cusolverDnSetStream");
    p.type == element_type::f64 ? run_in<double>(p, workspace) : run_in<float>(p, workspace);
  }

 private:
  static void check(cusolverStatus_t status, const char* call,
                    std::source_location at = std::source_location::current()) {
    if (status != CUSOLVER_STATUS_SUCCESS)
      throw cuda_error(call, "cuSOLVER's status " + std::to_string(static_cast<int>(status)), at);
  }
  static constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
  template <class T>
  static constexpr cudaDataType type = sizeof(T) == 8 ? CUDA_R_64F : CUDA_R_32F;
  // The one of two functions that is T's.
  template <class T, class Single, class Double>
  static auto in(Single single, Double twice) {
    if constexpr (sizeof(T) == 8)
      return twice;
    else
      return single;
  }
  static constexpr cusolverEigMode_t vectors = CUSOLVER_EIG_MODE_VECTOR;

  template <class T>
  std::size_t plan(const svd_problem& p) {
    const T* const none = nullptr;
    const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), batch = static_cast<int>(p.batch);
    int scalars = 0;
    std::size_t device = 0, host = 0;
    switch (routine_) {
      case svd_routine::gesvdp:
        check(cusolverDnXgesvdp_bufferSize(handle_, parameters_, vectors, 1, p.m, p.n, type<T>, none, p.m, type<T>,
                                           none, type<T>, none, p.m, type<T>, none, p.n, type<T>, &device, &host),
              "cusolverDnXgesvdp_bufferSize");
        break;
      case svd_routine::gesvdj:
        check(in<T>(cusolverDnSgesvdj_bufferSize, cusolverDnDgesvdj_bufferSize)(
                  handle_, vectors, 1, m, n, none, m, none, none, m, none, n, &scalars, jacobi_),
              "gesvdj_bufferSize");
        break;
      case svd_routine::gesvda:
        check(in<T>(cusolverDnSgesvdaStridedBatched_bufferSize, cusolverDnDgesvdaStridedBatched_bufferSize)(
                  handle_, vectors, n, m, n, none, m, p.m * p.n, none, p.n, none, m, p.m * p.n, none, n, p.n * p.n,
                  &scalars, batch),
              "gesvdaStridedBatched_bufferSize");
        break;
    }
    if (host > on_host_.size()) on_host_.resize(host);
    return routine_ == svd_routine::gesvdp ? device : static_cast<std::size_t>(scalars) * sizeof(T);
  }

  template <class T>
  void run_in(const svd_problem& p, std::byte* workspace) {
    const std::size_t bytes = plan<T>(p);
    const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), scalars = static_cast<int>(bytes / sizeof(T));
    int* const report = reinterpret_cast<int*>(workspace + aligned(bytes));
    T* const memory = reinterpret_cast<T*>(workspace);
    T *const a = static_cast<T*>(p.a), *const u = static_cast<T*>(p.u), *const s = static_cast<T*>(p.s),
             *const v = static_cast<T*>(p.v);
    if (routine_ == svd_routine::gesvda) {
      norms_.resize(static_cast<std::size_t>(p.batch));
      check(in<T>(cusolverDnSgesvdaStridedBatched, cusolverDnDgesvdaStridedBatched)(
                handle_, vectors, n, m, n, a, m, p.m * p.n, s, p.n, u, m, p.m * p.n, v, n, p.n * p.n, memory, scalars,
                report, norms_.data(), static_cast<int>(p.batch)),
            "gesvdaStridedBatched");
      return;
    }
    for (index_t b = 0; b < p.batch; ++b) {
      const index_t of_a = b * p.m * p.n, of_s = b * p.n, of_v = b * p.n * p.n;
      double perturbation = 0;
      if (routine_ == svd_routine::gesvdp)
        check(cusolverDnXgesvdp(handle_, parameters_, vectors, 1, p.m, p.n, type<T>, a + of_a, p.m, type<T>, s + of_s,
                                type<T>, u + of_a, p.m, type<T>, v + of_v, p.n, type<T>, memory, bytes, on_host_.data(),
                                on_host_.size(), report + b, &perturbation),
              "cusolverDnXgesvdp");
      else
        check(in<T>(cusolverDnSgesvdj, cusolverDnDgesvdj)(handle_, vectors, 1, m, n, a + of_a, m, s + of_s, u + of_a, m,
                                                          v + of_v, n, memory, scalars, report + b, jacobi_),
              "gesvdj");
    }
  }

  svd_routine routine_;
  cusolverDnHandle_t handle_ = nullptr;
  cusolverDnParams_t parameters_ = nullptr;
  gesvdjInfo_t jacobi_ = nullptr;
  std::vector<std::byte> on_host_;
  std::vector<double> norms_;
};

}  // namespace MATOPT_NAMESPACE::cuda
