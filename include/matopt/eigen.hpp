// eigen_backend: runs the verbs on the CPU, products through Eigen's kernels, over a small thread pool.
//
//   matopt::eigen_backend cpu;               one thread per hardware thread
//   matopt::eigen_backend cpu(4);            four
//
// Every verb has finished when it returns. Results do not depend on the number of threads: work is cut into tiles by
// shape alone. No verb that a step uses allocates. Storage may be row- or column-major, transposed, or a sub-block;
// operands of products need one unit stride (the library's own scratch always has it). Element types: float, double,
// and bfloat16 as storage; its products are summed in float. With MATOPT_HIGHWAY, products of float and bfloat16 run on
// the kernels of simd/, chosen at run time: their bits then depend on the kind of processor.
// Errors: bad_value for an illegal thread count.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "core/broadcast.hpp"
#include "core/coded_blocks.hpp"
#include "core/philox.hpp"
#include "core/types.hpp"
#include "eigen/decompositions.hpp"
#include "eigen/guarded.hpp"
#include "eigen/host_buffer.hpp"
#include "eigen/thread_pool.hpp"
#include "eigen/tiled_product.hpp"
#include "eigen/verbs.hpp"
#include "eigen/view_of.hpp"
#include "eigen/words.hpp"
#include "simd/kernel_set.hpp"
#include "simd/workspace.hpp"
#ifdef MATOPT_HIGHWAY
#include "simd/kernel_sets.hpp"
#include "simd/product.hpp"
#endif

namespace MATOPT_NAMESPACE {

class eigen_backend : public detail::decompositions<eigen_backend> {
 public:
  template <class T>
  static constexpr bool multiplies = std::is_same_v<T, bfloat16>;  // besides float and double

  using buffer = detail::host_buffer;

  explicit eigen_backend(int threads = 0)
      : pool_(threads), packing_(static_cast<std::size_t>(pool_.size()) * detail::packing<double>::bytes) {}

  int threads() const { return pool_.size(); }
  thread_pool& pool() { return pool_; }

  // Whether a chain of products takes less time here in bfloat16, with so many times the operations, than in float.
  bool prefers_bfloat16(double arithmetic) const { return kernels_ && kernels_->bfloat16_speed > arithmetic; }
  // One line: what runs the products, and why nothing faster does.
  std::string describe() const {
#ifdef MATOPT_HIGHWAY
    if (!kernels_) return "products by Eigen: the processor is older than AVX2 or NEON";
    const std::string missing = simd::why_not_faster();
    return std::string("products by Highway, ") + kernels_->name + (missing.empty() ? "" : " (" + missing + ")");
#else
    return "products by Eigen: compiled without Highway";
#endif
  }

  buffer allocate(std::size_t bytes) { return buffer(bytes); }
  void upload(void* to, const void* from, std::size_t bytes) {
    std::copy_n(static_cast<const std::byte*>(from), bytes, static_cast<std::byte*>(to));
  }
  void download(void* to, const void* from, std::size_t bytes) { upload(to, from, bytes); }

  template <class F, class T, class... V>
  void for_each(const status_word* guard, const F& f, const view<T>& first, const V&... rest) {
    if constexpr (detail::are_words<view<T>, V...>) {
      detail::map_words(guard, f, first, rest...);
    } else {
      using kernels = lines::map_kernels<F, view<T>, V...>;
      using A = typename kernels::A;
      lines::operand<A> x[] = {first, rest...};
      detail::map_all<A>(pool_, guard, &f, kernels::straight, kernels::transposed, {x, 1 + sizeof...(V)});
    }
  }

  template <class F, class T, class V, class... Vs>
  void reduce_rows(const status_word* guard, const F& f, const view<T>& out, const V& first, const Vs&... rest) {
    using A = common_arithmetic<V, Vs...>;
    lines::operand<A> x[] = {first, rest...};
    detail::reduce_rows_of_all<A, fn::reduction_of<F>>(pool_, guard, work<V, Vs...>(f, out), {x, 1 + sizeof...(Vs)});
  }

  template <class F, class T, class V, class... Vs>
  void reduce(const status_word* guard, const F& f, const view<T>& out, const V& first, const Vs&... rest) {
    if constexpr (detail::are_words<V, Vs...>) {
      detail::reduce_words(guard, f, out, first, rest...);
    } else {
      using A = common_arithmetic<V, Vs...>;
      lines::operand<A> x[] = {first, rest...};
      detail::reduce_all<A, fn::reduction_of<F>>(pool_, guard, work<V, Vs...>(f, out), {x, 1 + sizeof...(Vs)});
    }
  }

  // T is deduced from the output, so that const and non-const inputs mix. Scalars are in float for 16-bit elements.
  template <class T>
  void gemm(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
            view<const std::type_identity_t<T>> b, arithmetic_t<T> beta, view<const std::type_identity_t<T>> c,
            view<T> d) {
    if (!detail::all_stopped(guard, d.batch)) product<T>(alpha, a, b, beta, c, d, false);
  }
  template <class T>
  void gemm_symmetric(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
                      view<const std::type_identity_t<T>> b, arithmetic_t<T> beta,
                      view<const std::type_identity_t<T>> c, view<T> d) {
    if (!detail::all_stopped(guard, d.batch)) product<T>(alpha, a, b, beta, c, d, true);
  }

  // Element (i, j) of matrix b is number i cols + j of stream b.
  template <class T>
  void random_normal(const status_word* guard, view<T> x, std::uint64_t seed, view<const std::uint32_t> counter) {
    if (detail::all_stopped(guard, x.batch)) return;
    const std::uint32_t step = counter(0, 0);
    detail::run_tasks(pool_, x.batch * x.rows, x.batch * x.rows * x.cols * 16, [&](index_t task) {
      const index_t b = task / x.rows, i = task % x.rows;
      if (guard && guard[b]) return;
      for (index_t j = 0; j < x.cols; ++j)
        x(i, j, b) = static_cast<T>(
            philox::normal(seed, static_cast<std::uint32_t>(b), step, static_cast<std::uint64_t>(i * x.cols + j)));
    });
  }

  // x as codes and scales, and back (core/block_codes.hpp).
  template <class T>
  void quantize(const status_word* guard, const block_format& format, view<const T> x, view<std::uint8_t> codes,
                view<float> scales) {
    each_block(guard, format, x.rows * x.cols, x.batch,
               [&](index_t block, index_t b) { detail::quantize_block(format, block, x, codes, scales, b); });
  }
  template <class T>
  void dequantize(const status_word* guard, const block_format& format, view<const std::uint8_t> codes,
                  view<const float> scales, view<T> x) {
    each_block(guard, format, x.rows * x.cols, x.batch,
               [&](index_t block, index_t b) { detail::dequantize_block(format, block, codes, scales, x, b); });
  }

 private:
  template <class... V, class F, class T>
  static auto work(const F& f, const view<T>& out) {
    using kernels = lines::reduce_kernels<F, V...>;
    using A = typename kernels::A;
    return detail::reduction_work<A>{&f,   kernels::straight,           kernels::transposed, fn::sums_of<F>,
                                     &out, detail::put_results<F, A, T>};
  }

  static const simd::kernel_set* fastest_kernels() {
#ifdef MATOPT_HIGHWAY
    if (!simd::kernel_sets().empty()) return simd::kernel_sets().front();
#endif
    return nullptr;
  }

  // f(block, matrix) for the blocks of matrices that are not guarded.
  template <class F>
  void each_block(const status_word* guard, const block_format& format, index_t elements, index_t batch, F&& f) {
    const index_t blocks = format.blocks(elements);
    if (blocks > 0)
      detail::run_units(pool_, batch * blocks, std::min(elements, format.block), [&](index_t unit) {
        if (const index_t b = unit / blocks; !guard || !guard[b]) f(unit % blocks, b);
      });
  }

  template <class T>
  [[gnu::noinline]] void product(arithmetic_t<T> alpha, view<const T> a, view<const T> b, arithmetic_t<T> beta,
                                 view<const T> c, view<T> d, bool symmetric) {
#ifdef MATOPT_HIGHWAY
    if constexpr (!std::is_same_v<T, double>)
      // What is tiny or only a line or two wide does not repay packing.
      if (kernels_ && (symmetric || (std::min(d.rows, d.cols) > 2 && d.rows * d.cols * a.cols > 4096))) {
        const auto run = [](void* pool, index_t tasks, void (*task)(void*, index_t, int), void* closure) {
          static_cast<thread_pool*>(pool)->parallel_for(tasks,
                                                        [&](index_t i, int worker) { task(closure, i, worker); });
        };
        return simd::product(*kernels_, *workspace_, {&pool_, run}, {alpha, a, b, beta, c, d, symmetric});
      }
#endif
    const auto tasks = [this](index_t count, index_t elements, auto&& f) {
      detail::run_tasks(pool_, count, elements, f);
    };
    detail::tiled_product<T>(tasks, packing_.data(), alpha, a, b, beta, c, d, symmetric);
  }

  thread_pool pool_;
  buffer packing_;  // one set of packing buffers per thread
  // There with and without Highway: what a class looks like must not depend on a macro of one of the files that use it.
  const simd::kernel_set* kernels_ = fastest_kernels();
  std::unique_ptr<simd::workspace> workspace_{kernels_ ? new simd::workspace(pool_.size()) : nullptr};
};

}  // namespace MATOPT_NAMESPACE
