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
#include "eigen/blocks.hpp"
#include "eigen/decompositions.hpp"
#include "eigen/guarded.hpp"
#include "eigen/host_buffer.hpp"
#include "eigen/lines.hpp"
#include "eigen/thread_pool.hpp"
#include "eigen/tiled_product.hpp"
#include "eigen/view_of.hpp"
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
  void for_each(const status_word* guard, F f, view<T> first, V... rest) {
    detail::guarded(
        guard, first.batch, [&](const auto&... v) { map_matrices(f, v...); }, first, rest...);
  }

  template <class F, class T, class V, class... Vs>
  void reduce_rows(const status_word* guard, F f, view<T> out, V first, Vs... rest) {
    detail::guarded(
        guard, first.batch, [&](const auto&... v) { sum_rows(f, v...); }, out, first, rest...);
  }

  template <class F, class T, class V, class... Vs>
  void reduce(const status_word* guard, F f, view<T> out, V first, Vs... rest) {
    detail::guarded(
        guard, first.batch, [&](const auto&... v) { sum_matrices(f, v...); }, out, first, rest...);
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
    run_tasks(x.batch * x.rows, x.batch * x.rows * x.cols * 16, [&](index_t task) {
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
  static constexpr index_t grain = 16384;  // elements worth a task

  template <class F, class T, class... V>
  void map_matrices(const F& f, const view<T>& first, const V&... rest) {
    if constexpr ((lines::is_view<V> && ...))
      if (first.rows * first.cols == 1 && first.batch > 1 && !first.table && (!rest.table && ...))
        return map_lines(f, numbers_in_line(first), numbers_in_line(rest)...);
    // The line runs along the weight's contiguous direction; a column vector counts as contiguous along its rows.
    if (first.row_contiguous() && first.cols >= (first.col_contiguous() ? first.rows : 1))
      map_lines(f, first, rest...);
    else
      map_lines(f, first.t(), lines::transposed(rest)...);
  }
  template <class F, class T, class V, class... Vs>
  void sum_rows(const F& f, const view<T>& out, const V& first, const Vs&... rest) {
    using A = common_arithmetic<V, Vs...>;
    using R = fn::reduction_of<F>;
    run_units(first.batch * first.rows, first.cols, [&](index_t unit) {
      const index_t b = unit / first.rows, i = unit % first.rows;
      const auto sums = lines::reduce<A, R>(f, 0, first.cols, lines::line(first, b, i), lines::line(rest, b, i)...);
      put_results(out, i, b, fn::finish<F, A>(sums.data()));
    });
  }
  template <class F, class T, class V, class... Vs>
  void sum_matrices(const F& f, const view<T>& out, const V& first, const Vs&... rest) {
    if (first.row_stride < first.col_stride) return reduce_matrix(f, out, first.t(), lines::transposed(rest)...);
    reduce_matrix(f, out, first, rest...);
  }

  static const simd::kernel_set* fastest_kernels() {
#ifdef MATOPT_HIGHWAY
    if (!simd::kernel_sets().empty()) return simd::kernel_sets().front();
#endif
    return nullptr;
  }

  // Small work is not worth waking a thread for.
  template <class F>
  void run_tasks(index_t tasks, index_t elements, F&& f) {
    pool_.parallel_for(tasks, f, elements >= 2 * grain);
  }

  // f(unit) for units of `elements` each; a task is as many of them as are worth one.
  template <class F>
  void run_units(index_t units, index_t elements, const F& f) {
    run_ranges(units, elements, &f, [](const void* closure, index_t begin, index_t end) {
      for (index_t unit = begin; unit < end; ++unit) (*static_cast<const F*>(closure))(unit);
    });
  }
  // Compiled once for all verbs.
  [[gnu::noinline]] void run_ranges(index_t units, index_t elements, const void* closure,
                                    void (*range)(const void* closure, index_t begin, index_t end)) {
    const index_t per_task = std::max<index_t>(1, grain / std::max<index_t>(1, elements));
    run_tasks((units + per_task - 1) / per_task, units * elements,
              [&](index_t task) { range(closure, task * per_task, std::min(units, (task + 1) * per_task)); });
  }

  // f(block, matrix) for the blocks of matrices that are not guarded.
  template <class F>
  void each_block(const status_word* guard, const block_format& format, index_t elements, index_t batch, F&& f) {
    const index_t blocks = format.blocks(elements);
    if (blocks > 0)
      run_units(batch * blocks, std::min(elements, format.block), [&](index_t unit) {
        if (const index_t b = unit / blocks; !guard || !guard[b]) f(unit % blocks, b);
      });
  }

  // A batch of 1 x 1 matrices as one row.
  template <class T>
  static view<T> numbers_in_line(const view<T>& v) {
    return {v.data, 1, v.batch, 0, v.batch_stride};
  }

  template <class F, class T, class... V>
  void map_lines(const F& f, const view<T>& first, const V&... rest) {
    using A = common_arithmetic<view<T>, V...>;
    index_t count = first.rows, length = first.cols;
    if (lines::dense(first) && (lines::dense(rest) && ...)) length *= count, count = 1;
    if (length == 0) return;
    const index_t piece = std::min(length, grain), pieces = (length + piece - 1) / piece;
    run_units(first.batch * count * pieces, piece, [&](index_t unit) {
      const index_t at = unit / pieces, b = at / count, i = at % count, begin = unit % pieces * piece;
      lines::map<A>(f, begin, std::min(piece, length - begin), lines::line(first, b, i), lines::line(rest, b, i)...);
    });
  }

  template <class T, class A, int Count>
  static void put_results(const view<T>& out, index_t row, index_t b, const fn::terms<A, Count>& results) {
    for (int k = 0; k < Count; ++k) out(row, k, b) = static_cast<T>(results.at[k]);
  }

  // Lines, or pieces of long ones, and then their results in double, in an order that the shape fixes: at most 64
  // chunks per matrix.
  template <class F, class T, class V, class... Vs>
  void reduce_matrix(const F& f, view<T> out, const V& first, const Vs&... rest) {
    using A = common_arithmetic<V, Vs...>;
    using R = fn::reduction_of<F>;
    using sums = std::array<double, fn::sums_of<F>>;
    constexpr index_t most = 64;
    index_t count = first.rows, length = first.cols;
    // A maximum has no order. Of sums, what storage allows must not change the order.
    if constexpr (std::is_same_v<R, fn::maximum>)
      if (lines::dense(first) && (lines::dense(rest) && ...)) length *= count, count = 1;
    const index_t piece = std::min(std::max<index_t>(1, length), grain), pieces = (length + piece - 1) / piece;
    const index_t units = count * pieces;
    const index_t per_chunk = std::max({index_t{1}, grain / piece, (units + most - 1) / most});
    const index_t chunks = (units + per_chunk - 1) / per_chunk;
    sums none;
    none.fill(R::template identity<double>());
    const auto combine = [](sums& sum, const sums& next) {
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] = R::combine(sum[k], next[k]);
    };
    const auto chunk = [&](index_t b, index_t c) {
      sums sum = none;
      for (index_t unit = c * per_chunk; unit < std::min(units, (c + 1) * per_chunk); ++unit) {
        const index_t i = unit / pieces, begin = unit % pieces * piece;
        combine(sum, lines::reduce<A, R>(f, begin, std::min(piece, length - begin), lines::line(first, b, i),
                                         lines::line(rest, b, i)...));
      }
      return sum;
    };
    const auto whole = [&](index_t b, const auto& part) {
      sums sum = none;
      for (index_t c = 0; c < chunks; ++c) combine(sum, part(c));
      put_results(out, 0, b, fn::finish<F, A>(sum.data()));
    };
    // Large matrices are cut, small ones taken several at a time.
    if (chunks < 8) {
      run_units(first.batch, count * length, [&](index_t b) { whole(b, [&](index_t c) { return chunk(b, c); }); });
      return;
    }
    for (index_t b = 0; b < first.batch; ++b) {
      sums parts[most];
      run_tasks(chunks, count * length, [&](index_t c) { parts[c] = chunk(b, c); });
      whole(b, [&](index_t c) { return parts[c]; });
    }
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
    const auto tasks = [this](index_t count, index_t elements, auto&& f) { this->run_tasks(count, elements, f); };
    detail::tiled_product<T>(tasks, packing_.data(), alpha, a, b, beta, c, d, symmetric);
  }

  thread_pool pool_;
  buffer packing_;  // one set of packing buffers per thread
  // There with and without Highway: what a class looks like must not depend on a macro of one of the files that use it.
  const simd::kernel_set* kernels_ = fastest_kernels();
  std::unique_ptr<simd::workspace> workspace_{kernels_ ? new simd::workspace(pool_.size()) : nullptr};
};

}  // namespace MATOPT_NAMESPACE
