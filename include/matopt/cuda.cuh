// cuda_backend: runs the verbs on an NVIDIA GPU; compile with nvcc -std=c++20 --expt-relaxed-constexpr, link cublasLt
// and cublas.
//
//   matopt::cuda_backend gpu(stream);                        the current device, work ordered on `stream`
//   matopt::optimizer<matopt::muon, matopt::cuda_backend> opt(gpu);
//   opt.add("w", matopt::row_major(w, 64, 128), matopt::row_major(g, 64, 128));      device pointers
//
// Verbs only launch: nothing that a step uses allocates, waits or reads back, so a step can be captured in a graph
// (cuda/captured_step.cuh). Results are the same bits in every run on the same kind of device. Products take float,
// double, float16, bfloat16 and tfloat32 and sum the 16-bit types in float; what a rule does not decide, the
// Newton-Schulz family does in float16. Memory besides the optimizers': workspace_bytes, allocated here. Calls must
// come from one thread at a time, whichever its current device is. Errors: cuda_error; bad_value for memory that is
// not this device's; out_of_memory.
//
// SPDX-License-Identifier: MIT
#pragma once
#if !defined(__CUDACC__)
#error "matopt/cuda.cuh has kernels: compile this file with nvcc"
#endif
#if !defined(__CUDACC_RELAXED_CONSTEXPR__)
#error "matopt/cuda.cuh needs nvcc --expt-relaxed-constexpr"
#endif
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "core/backend.hpp"
#include "core/broadcast.hpp"
#include "core/philox.hpp"
#include "cuda/block_columns.cuh"
#include "cuda/branches.cuh"
#include "cuda/buffer.cuh"
#include "cuda/decompositions.cuh"
#include "cuda/device.cuh"
#include "cuda/hopper_product.cuh"
#include "cuda/map.cuh"
#include "cuda/on_device.cuh"
#include "cuda/piecewise_product.cuh"
#include "cuda/product.cuh"
#include "cuda/quantize.cuh"
#include "cuda/random.cuh"
#include "cuda/reduce.cuh"
#include "cuda/rows.cuh"

namespace MATOPT_NAMESPACE {

class cuda_backend : public cuda::decompositions<cuda_backend> {
 public:
  using buffer = cuda::buffer;
  template <class T>
  static constexpr bool multiplies = storage_only<T> || std::is_floating_point_v<T>;
  template <class C>
  using product_type = std::conditional_t<std::is_same_v<C, float>, float16, C>;
  static constexpr std::size_t workspace_bytes = cuda::products::workspace_bytes + cuda::meeting_place::bytes;

  // Half of the bucket, which saves scratch, but six waves of tiles of the smallest product and no more than sixteen;
  // in equal parts.
  template <class T>
  index_t product_batch(index_t m, index_t, index_t batch) const {
    const index_t tiles = ((m + 127) / 128) * ((m + 255) / 256);
    const auto waves = [&](index_t n) { return std::max<index_t>(1, n * device_.multiprocessors / tiles); };
    const index_t most = std::clamp((batch + 1) / 2, waves(6), waves(16)), parts = (batch + most - 1) / most;
    return (batch + parts - 1) / std::max<index_t>(1, parts);
  }

  // With a library (cuda/cusolver.cuh), that does the singular value decompositions, and verbs may wait for the device.
  explicit cuda_backend(cudaStream_t stream = nullptr, std::unique_ptr<cuda::svd_library> library = nullptr)
      : cuda::decompositions<cuda_backend>(std::move(library)),
        device_(cuda::device::usable()),
        stream_(stream),
        products_(stream),
        hopper_(device_),
        pieces_(device_),
        meeting_memory_(cuda::meeting_place::bytes, stream),
        meeting_(cuda::meeting_place::in(meeting_memory_.data())) {}

  int device() const { return device_.number; }
  // One line: the device, and which kernels do the products and why no better ones. Meant for logs and benchmarks.
  std::string describe() const {
    const std::string missing = hopper_.why_not();
    return device_.describe() + "; 16-bit products: " +
           (missing.empty() ? "matopt's kernel for sm_90a where it pays, and cuBLASLt"
                            : "cuBLASLt only, because " + missing);
  }
  cudaStream_t stream() const { return stream_; }
  // Later verbs wait for the event; the event happens when earlier verbs are done.
  void wait(cudaEvent_t event) {
    const cuda::on_device here(device());
    cuda::check(cudaStreamWaitEvent(stream_, event), "wait for an event");
  }
  void record(cudaEvent_t event) {
    const cuda::on_device here(device());
    cuda::check(cudaEventRecord(event, stream_), "record an event");
  }
  void synchronize() {
    const cuda::on_device here(device());
    cuda::check(cudaStreamSynchronize(stream_), "synchronize");
  }

  buffer allocate(std::size_t bytes) {
    const cuda::on_device here(device());
    return buffer(bytes, stream_);
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    const cuda::on_device here(device());
    cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "upload");
  }
  void download(void* to, const void* from, std::size_t bytes) {
    const cuda::on_device here(device());
    cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    synchronize();
  }
  // Throws bad_value unless the memory can be used by kernels of this device.
  void require_memory(const std::string& what, const void* p) const {
    const cuda::on_device here(device());
    const std::string legal = "memory of CUDA device " + std::to_string(device());
    cudaPointerAttributes a{};
    cuda::check(cudaPointerGetAttributes(&a, p), "look up a pointer");
    if (a.type == cudaMemoryTypeManaged) return;
    if (a.type != cudaMemoryTypeDevice) throw bad_value(what, "host memory", legal);
    if (a.device != device()) throw bad_value(what, "memory of CUDA device " + std::to_string(a.device), legal);
  }

  // launches(), which a recorded step leaves out while all of these guards are raised.
  template <class Launches>
  void where_any(const status_word* guards, index_t count, const Launches& launches) {
    const cuda::on_device here(device());
    branches_.run(stream_, guards, count, launches);
  }

  template <class F, class T, class... V>
  void for_each(const status_word* guard, F f, view<T> first, V... rest) {
    const cuda::on_device here(device());
    // The line runs along the weight's contiguous direction; a column vector counts as contiguous along its rows.
    const bool along_columns = first.row_contiguous() && first.cols >= (first.col_contiguous() ? first.rows : 1);
    over_lines(along_columns ? cuda::line_along::columns : cuda::line_along::rows, first, rest...,
               [&](const cuda::extent& e, const auto&... v) {
                 cuda::map<common_arithmetic<view<T>, V...>>(stream_, guard, f, e, v...);
               });
    cuda::check_launch("for_each");
  }
  template <class F, class T, class V, class... Vs>
  void reduce(const status_word* guard, F f, view<T> out, V first, Vs... rest) {
    const cuda::on_device here(device());
    over_lines(first.row_stride < first.col_stride ? cuda::line_along::rows : cuda::line_along::columns, first, rest...,
               [&](const cuda::extent& e, const auto&... v) {
                 cuda::reduce<common_arithmetic<V, Vs...>>(stream_, guard, f, e, out, meeting_, v...);
               });
    cuda::check_launch("reduce");
  }
  template <class F, class T, class V, class... Vs>
  void reduce_rows(const status_word* guard, F f, view<T> out, V first, Vs... rest) {
    const cuda::on_device here(device());
    const cuda::extent e{first.rows, first.cols, first.batch};
    if (e.lines == 0 || e.batch == 0) return;
    constexpr auto along = cuda::line_along::columns;
    const bool side_by_side = first.col_stride != 1 && first.row_stride == 1 && first.rows > 1;
    cuda::reduce_lines<common_arithmetic<V, Vs...>>(stream_, guard, f, e, side_by_side, out,
                                                    cuda::argument(first, along), cuda::argument(rest, along)...);
    cuda::check_launch("reduce_rows");
  }

  // As pass::for_rows describes it. Rows that are not contiguous are better taken by three verbs.
  template <class Sums, class T, class Numbers, class Elements>
  void for_rows(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers,
                const Elements& elements) {
    const cuda::on_device here(device());
    if (rows_at_once(guard, sums, out, numbers, elements, cuda::no_total{})) return;
    std::apply([&](const auto&... v) { for_each(guard, elements.f, not_shared(v)...); }, elements.on);
  }
  template <class Sums, class T, class Numbers, class Elements, class U>
  void for_rows_and_reduce(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers,
                           const Elements& elements, view<U> total) {
    const cuda::on_device here(device());
    if (rows_at_once(guard, sums, out, numbers, elements, total)) return;
    std::apply([&](const auto&... v) { reduce(guard, elements.f, total, not_shared(v)...); }, elements.on);
  }

  template <class T>
  void gemm(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
            view<const std::type_identity_t<T>> b, arithmetic_t<T> beta, view<const std::type_identity_t<T>> c,
            view<T> d) {
    const cuda::on_device here(device());
    if (d.rows == 0 || d.cols == 0 || d.batch == 0) return;
    if (by_own_kernel(guard, alpha, a, b, beta, c, d, false)) return;
    if (d.row_stride != 1 && d.rows != 1) return gemm(guard, alpha, b.t(), a.t(), beta, c.t(), d.t());
    place(guard, beta, c, d);
    if (a.cols == 0)
      for_each(guard, fn::multiple{static_cast<double>(beta)}, d, c);
    else
      products_.run(stream_, alpha, a, b, beta, c, d);
  }
  // D <- alpha A B + beta D, of factors in 16 bits.
  void gemm_in_float(float alpha, view<const float16> a, view<const float16> b, float beta, view<float> d) {
    const cuda::on_device here(device());
    products_.run<float, float16>(stream_, alpha, a, b, beta, as_const(d), d);
  }
  // Bytes that a product of m x k by k x n takes for being made of 16-bit or 11-bit pieces, 0 where that does not pay.
  template <class T>
  requires std::is_same_v<T, float> std::size_t gemm_workspace(index_t m, index_t n, index_t k, index_t batch,
                                                               factor_entries of)
  const {
    if (of == factor_entries::bounded && pieces_.pays<float16>(m, n, k, batch))
      return pieces_.workspace<float16>(m, n, k, batch);
    if (of == factor_entries::any && pieces_.pays<tfloat32>(m, n, k, batch))
      return pieces_.workspace<tfloat32>(m, n, k, batch);
    return 0;
  }
  void gemm(const status_word* guard, float alpha, view<const float> a, view<const float> b, float beta,
            view<const float> c, view<float> d, std::byte* workspace, factor_entries of, bool few = false) {
    by_pieces(guard, alpha, a, b, beta, c, d, workspace, of, few, false);
  }
  void gemm_symmetric(const status_word* guard, float alpha, view<const float> a, view<const float> b, float beta,
                      view<const float> c, view<float> d, std::byte* workspace, factor_entries of, bool few = false) {
    if (by_pieces(guard, alpha, a, b, beta, c, d, workspace, of, few, true)) return;
    const cuda::on_device here(device());
    cuda::mirror(stream_, d.col_stride == 1 ? d : d.t());  // the pieces of the two sides are not the same
    cuda::check_launch("gemm_symmetric");
  }
  template <class T>
  void gemm_symmetric(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
                      view<const std::type_identity_t<T>> b, arithmetic_t<T> beta,
                      view<const std::type_identity_t<T>> c, view<T> d) {
    const cuda::on_device here(device());
    if (by_own_kernel(guard, alpha, a, b, beta, c, d, true)) return;
    const index_t n = d.rows, count = cuda::block_columns<T>(n);
    if (count == 1 || (d.col_stride != 1 && d.row_stride != 1)) return gemm(guard, alpha, a, b, beta, c, d);
    if (d.col_stride != 1) return gemm_symmetric(guard, alpha, b.t(), a.t(), beta, c.t(), d.t());
    cuda::for_block_columns(n, count, [&](index_t first, index_t width) {
      const auto part = [&](const auto& v) { return v.row_block(first, n - first).col_block(first, width); };
      gemm(guard, alpha, a.row_block(first, n - first), b.col_block(first, width), beta, part(c), part(d));
    });
    cuda::mirror(stream_, d);
    cuda::check_launch("gemm_symmetric");
  }

  // Element (i, j) of matrix b is number i cols + j of stream b.
  template <class T>
  void random_normal(const status_word* guard, view<T> x, std::uint64_t seed, view<const std::uint32_t> counter) {
    const cuda::on_device here(device());
    const index_t each = x.rows * x.cols;
    if (each == 0 || x.batch == 0) return;
    const dim3 grid(static_cast<unsigned>(std::min<index_t>(1 << 20, (each + 255) / 256)),
                    static_cast<unsigned>(std::min(cuda::most_batch, x.batch)));
    cuda::random_normal_kernel<<<grid, cuda::block_size, 0, stream_>>>(guard, x, seed, counter);
    cuda::check_launch("random_normal");
  }

  // x as codes and scales, and back (core/block_codes.hpp).
  template <class T>
  void quantize(const status_word* guard, const block_format& format, view<const T> x, view<std::uint8_t> codes,
                view<float> scales) {
    const cuda::on_device here(device());
    cuda::quantize(stream_, guard, format, x, codes, scales);
    cuda::check_launch("quantize");
  }
  template <class T>
  void dequantize(const status_word* guard, const block_format& format, view<const std::uint8_t> codes,
                  view<const float> scales, view<T> x) {
    const cuda::on_device here(device());
    cuda::dequantize(stream_, guard, format, codes, scales, x);
    cuda::check_launch("dequantize");
  }

 private:
  // C of a product, laid out as D is, in whose memory it then lies. A C that is not read needs no copy.
  template <class T>
  void place(const status_word* guard, arithmetic_t<T> beta, view<const T>& c, const view<T>& d) {
    if (beta != 0 && c.row_stride == d.row_stride && c.col_stride == d.col_stride) return;
    if (beta != 0) for_each(guard, fn::assign{}, d, c);
    c = d;
  }
  // Returns whether D is symmetric to the last bit.
  bool by_pieces(const status_word* guard, float alpha, view<const float> a, view<const float> b, float beta,
                 view<const float> c, view<float> d, std::byte* workspace, factor_entries of, bool few,
                 bool symmetric) {
    const cuda::on_device here(device());
    if (d.row_stride != 1 && d.rows != 1)
      return by_pieces(guard, alpha, b.t(), a.t(), beta, c.t(), d.t(), workspace, of, few, symmetric);
    place(guard, beta, c, d);
    return of == factor_entries::bounded ? pieces_.run<float16>(hopper_, products_, stream_, guard, alpha, a, b, beta,
                                                                c, d, workspace, few, symmetric)
                                         : pieces_.run<tfloat32>(hopper_, products_, stream_, guard, alpha, a, b, beta,
                                                                 c, d, workspace, few, symmetric);
  }
  template <class T>
  bool by_own_kernel(const status_word* guard, arithmetic_t<T> alpha, const view<const T>& a, const view<const T>& b,
                     arithmetic_t<T> beta, const view<const T>& c, const view<T>& d, bool symmetric) {
    if constexpr (sizeof(T) == 2)
      if (a.cols != 0 && hopper_.pays(d.rows, d.cols, d.batch, symmetric))
        return d.col_stride == 1 ? hopper_.run<T>(stream_, guard, alpha, a, b, beta, c, d, symmetric)
                                 : hopper_.run<T>(stream_, guard, alpha, b.t(), a.t(), beta, c.t(), d.t(), symmetric);
    return false;
  }
  // All of for_rows, or, and then false, all but the elements.
  template <class Sums, class T, class Numbers, class Elements, class Total>
  bool rows_at_once(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers,
                    const Elements& elements, const Total& total) {
    const auto& matrix = std::get<0>(elements.on);
    const cuda::extent e{matrix.rows, matrix.cols, matrix.batch};
    if (matrix.col_stride == 1 && e.lines > 0 && e.length > 0 && e.batch > 0) {
      cuda::rows(stream_, guard, e, sums, out, numbers, elements, total, meeting_, device_.multiprocessors);
      cuda::check_launch("for_rows");
      return true;
    }
    std::apply([&](const auto&... v) { reduce_rows(guard, sums.f, out, not_shared(v)...); }, sums.on);
    std::apply([&](const auto&... v) { for_each(guard, numbers.f, not_shared(v)...); }, numbers.on);
    return false;
  }

  // Calls use(extent, arguments...) with the arguments as kernels take them, all lines as one where that is possible.
  template <class V, class... Rest>
  void over_lines(cuda::line_along along, const V& first, const Rest&... rest_and_use) {
    with_last(
        [&](const auto& use, const auto&... rest) {
          const bool columns = along == cuda::line_along::columns;
          cuda::extent e{columns ? first.rows : first.cols, columns ? first.cols : first.rows, first.batch};
          if (e.lines == 0 || e.length == 0 || e.batch == 0) return;
          const auto run = [&](const auto&... v) {
            if ((cuda::joins_lines(v, e.length) && ...)) e.length *= e.lines, e.lines = 1;
            use(e, v...);
          };
          run(cuda::argument(first, along), cuda::argument(rest, along)...);
        },
        rest_and_use...);
  }
  // f(last, all but the last...)
  template <class F, class... A>
  static void with_last(F f, const A&... a) {
    const auto all = std::tie(a...);
    [&]<std::size_t... I>(std::index_sequence<I...>) { f(std::get<sizeof...(A) - 1>(all), std::get<I>(all)...); }
    (std::make_index_sequence<sizeof...(A) - 1>{});
  }

  cuda::device device_;
  cudaStream_t stream_;
  cuda::products products_;
  cuda::hopper::products hopper_;
  cuda::piecewise_product pieces_;
  cuda::branches branches_;
  buffer meeting_memory_;
  cuda::meeting_place meeting_;
};

}  // namespace MATOPT_NAMESPACE
