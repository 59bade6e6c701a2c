// products: D = alpha A B + beta C for batches of matrices, by cuBLASLt. C may be D or lie elsewhere. What cuBLASLt
// needs to know of a product (layouts, algorithm) is worked out the first time it is seen and kept in a table of fixed
// size: the host allocates nothing later, and nothing is tuned by trying.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "../core/types.hpp"
#include "../core/view.hpp"
#include "buffer.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class T>
struct blas_type {
  static constexpr cudaDataType_t data = std::is_same_v<T, double>     ? CUDA_R_64F
                                         : std::is_same_v<T, float16>  ? CUDA_R_16F
                                         : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                                                       : CUDA_R_32F;
  static constexpr cublasComputeType_t compute = std::is_same_v<T, double>     ? CUBLAS_COMPUTE_64F
                                                 : std::is_same_v<T, tfloat32> ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                               : CUBLAS_COMPUTE_32F;
};

// A matrix as BLAS sees it: column-major with a leading dimension, or the transpose of such a one.
struct blas_layout {
  bool transposed;
  index_t leading;

  template <class T>
  static blas_layout of(const view<T>& v) {
    const bool columns = v.row_stride == 1 || v.rows == 1;
    if (columns && (v.cols == 1 || v.col_stride >= v.rows))
      return {false, std::max(v.cols == 1 ? v.rows : v.col_stride, v.rows)};
    return {true, std::max(v.rows == 1 ? v.cols : v.row_stride, v.cols)};
  }
};

class products {
 public:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  explicit products(cudaStream_t stream) : workspace_(workspace_bytes, stream), table_(std::make_unique<table>()) {
    check(cublasLtCreate(&handle_), "create a cuBLASLt handle");
  }
  products(const products&) = delete;
  products& operator=(const products&) = delete;
  ~products() { cublasLtDestroy(handle_); }

  // D must have a unit stride down its columns (or one row); A, B a unit stride; C the strides of D.
  template <class T, class In = T>
  void run(cudaStream_t stream, arithmetic_t<T> alpha, const view<const In>& a, const view<const In>& b,
           arithmetic_t<T> beta, const view<const T>& c, const view<T>& d) {
    const blas_layout la = blas_layout::of(a), lb = blas_layout::of(b), ld = blas_layout::of(d);
    const bool stacked = d.batch > 1;
    key k{};
    k.in = static_cast<int>(blas_type<In>::data), k.out = static_cast<int>(blas_type<T>::data);
    k.compute = static_cast<int>(blas_type<In>::compute);
    k.m = d.rows, k.n = d.cols, k.k = a.cols, k.batch = d.batch;
    k.ta = la.transposed, k.tb = lb.transposed, k.lda = la.leading, k.ldb = lb.leading;
    k.ldc = blas_layout::of(c).leading, k.ldd = ld.leading;
    if (stacked) k.sa = a.batch_stride, k.sb = b.batch_stride, k.sc = c.batch_stride, k.sd = d.batch_stride;
    k.align_a = alignment(a, stacked), k.align_b = alignment(b, stacked);
    k.align_c = alignment(c, stacked), k.align_d = alignment(d, stacked);
    plan& p = find(k);
    check(cublasLtMatmul(handle_, &p.operation, &alpha, a.data, &p.a, b.data, &p.b, &beta, c.data, &p.c, d.data, &p.d,
                         &p.algorithm, workspace_.data(), workspace_bytes, stream),
          "gemm");
  }

 private:
  struct key {
    std::int64_t m, n, k, batch, lda, ldb, ldc, ldd, sa, sb, sc, sd;
    std::int32_t in, out, compute, align_a, align_b, align_c, align_d;
    std::int16_t ta, tb;  // two that fill a word: all bytes are hashed
    bool operator==(const key&) const = default;
  };
  struct plan {
    bool used = false;
    key k{};
    cublasLtMatmulDescOpaque_t operation{};
    cublasLtMatrixLayoutOpaque_t a{}, b{}, c{}, d{};
    cublasLtMatmulAlgo_t algorithm{};
  };
  static constexpr std::size_t table_size = 1024;
  using table = std::array<plan, table_size>;

  // Bytes, a power of two up to 16, that every matrix begins at a multiple of.
  template <class T>
  static int alignment(const view<T>& v, bool stacked) {
    auto bits = reinterpret_cast<std::uintptr_t>(v.data) | 16U;
    if (stacked) bits |= static_cast<std::uintptr_t>(v.batch_stride) * sizeof(T);
    return static_cast<int>(bits & (~bits + 1));
  }

  plan& find(const key& k) {
    std::uint64_t hash = 1469598103934665603ULL;
    const auto* bytes = reinterpret_cast<const unsigned char*>(&k);
    for (std::size_t i = 0; i < sizeof(key); ++i) hash = (hash ^ bytes[i]) * 1099511628211ULL;
    const std::size_t home = static_cast<std::size_t>(hash % table_size);
    for (std::size_t i = 0; i < table_size; ++i) {
      plan& p = (*table_)[(home + i) % table_size];
      if (p.used && p.k == k) return p;
      if (!p.used || i == 15) {  // a full neighbourhood: the newest replaces
        make(p, k);
        return p;
      }
    }
    return (*table_)[home];
  }

  void make(plan& p, const key& k) const {
    const auto in = static_cast<cudaDataType_t>(k.in), out = static_cast<cudaDataType_t>(k.out);
    p.used = false;
    check(cublasLtMatmulDescInit(&p.operation, static_cast<cublasComputeType_t>(k.compute),
                                 out == CUDA_R_64F ? CUDA_R_64F : CUDA_R_32F),
          "gemm");
    const cublasOperation_t ta = k.ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = k.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublasLtMatmulDescSetAttribute(&p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta), "gemm");
    check(cublasLtMatmulDescSetAttribute(&p.operation, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb), "gemm");
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t& l, cudaDataType_t type, std::int64_t rows, std::int64_t cols,
                            std::int64_t leading, std::int64_t stride) {
      check(cublasLtMatrixLayoutInit(&l, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols),
                                     leading),
            "gemm");
      const auto batch = static_cast<std::int32_t>(k.batch);
      check(cublasLtMatrixLayoutSetAttribute(&l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "gemm");
      check(cublasLtMatrixLayoutSetAttribute(&l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
            "gemm");
    };
    layout(p.a, in, k.ta ? k.k : k.m, k.ta ? k.m : k.k, k.lda, k.sa);
    layout(p.b, in, k.tb ? k.n : k.k, k.tb ? k.k : k.n, k.ldb, k.sb);
    layout(p.c, out, k.m, k.n, k.ldc, k.sc);
    layout(p.d, out, k.m, k.n, k.ldd, k.sd);
    cublasLtMatmulPreferenceOpaque_t preference;
    check(cublasLtMatmulPreferenceInit(&preference), "gemm");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof value), "gemm");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(k.align_a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(k.align_b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(k.align_c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(k.align_d));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle_, &p.operation, &p.a, &p.b, &p.c, &p.d, &preference, 1, &found, &count),
          "gemm");
    check(count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED, "gemm");
    p.algorithm = found.algo;
    p.k = k;
    p.used = true;
  }

  cublasLtHandle_t handle_ = nullptr;
  buffer workspace_;
  std::unique_ptr<table> table_;
};

}  // namespace MATOPT_NAMESPACE::cuda
