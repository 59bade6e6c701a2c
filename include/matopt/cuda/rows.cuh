// The kernel of for_rows: a block takes a row, reads it for its sums, lets one thread work on the numbers of the row,
// and goes over the row once more, which by then is in the cache.
#pragma once
#include <tuple>

#include "../core/work.hpp"
#include "reduce.cuh"

namespace matopt::cuda {

// What a kernel does, with its arguments as the kernel sees them.
template <class A, class F, class... V>
struct row_task {
  using arithmetic = A;
  using functor = F;
  F f;
  std::tuple<V...> on;

  // take(f(...)) for the elements of a line, which the threads of the block share ...
  template <class Take>
  __device__ void over_line(const extent& e, index_t b, index_t line, Take&& take) const {
    constexpr int at_once = packs_at_once<A>;
    const index_t before = line * e.packs_per_line(), end = before + e.packs_per_line();
    with_located<pack_size>(b, e.lines, [&](const auto&... located) {
      for (index_t at = before + threadIdx.x; at < end; at += static_cast<index_t>(blockDim.x) * at_once)
        apply<A>(f, packs_from<at_once>(e, at, blockDim.x, end), take, located...);
    });
  }
  // ... or for one element of the only line.
  __device__ void at(index_t b, index_t j) const {
    with_located<1>(b, 1, [&](const auto&... located) {
      apply<A>(
          f, spots<1, 1>{{0}, {j}, {1}, true}, [](auto) {}, located...);
    });
  }

 private:
  template <int P, class Use>
  __device__ void with_located(index_t b, index_t lines, Use&& use) const {
    std::apply([&](const auto&... v) { use(locate<P>(v, b, lines)...); }, on);
  }
};
template <class F, class... V>
auto row_task_of(const work<F, V...>& w, line_along along) {
  return std::apply(
      [&](const auto&... v) {
        return row_task<common_arithmetic<V...>, F, decltype(argument(v, along))...>{w.f, {argument(v, along)...}};
      },
      w.on);
}

struct no_total {};  // in place of the view that a reduction of the whole matrix goes to

template <class Sums, class T, class Numbers, class Elements, class Total>
__global__ void __launch_bounds__(block_size)
    rows_kernel(const status_word* guard, extent e, index_t first, index_t lines_per_block, Sums sums, view<T> out,
                Numbers numbers, Elements elements, Total total, meeting_place meet) {
  if (guard && *guard) return;
  constexpr bool reduces = !std::is_same_v<Total, no_total>;
  using F = typename Sums::functor;
  using G = typename Elements::functor;
  using R = fn::reduction_of<F>;
  using Q = fn::reduction_of<G>;
  constexpr int n = fn::sums_of<F>;
  const index_t b = first + blockIdx.y, begin = blockIdx.x * lines_per_block,
                end = min(begin + lines_per_block, e.lines);
  accumulator<typename Elements::arithmetic, Q, fn::sums_of<G>> of_elements;
  for (index_t line = begin; line < end; ++line) {
    accumulator<typename Sums::arithmetic, R, n> own;
    sums.over_line(e, b, line, own);
    double sum[n];
    for (int k = 0; k < n; ++k) sum[k] = over_block<R>(static_cast<double>(own.sum[k]));
    if (threadIdx.x == 0) {
      put_results<F, typename Sums::arithmetic>(out, line, b, sum);
      numbers.at(b, line);
    }
    __syncthreads();
    if constexpr (reduces)
      elements.over_line(e, b, line, of_elements);
    else
      elements.over_line(e, b, line, [](auto) {});
  }
  if constexpr (reduces) finish_matrix<G, typename Elements::arithmetic>(of_elements, total, b, meet);
}

template <class F, class... V, class T, class H, class... N, class G, class... E, class Total>
void rows(cudaStream_t stream, const status_word* guard, const extent& e, const work<F, V...>& sums, const view<T>& out,
          const work<H, N...>& numbers, const work<G, E...>& elements, const Total& total, const meeting_place& meet) {
  const unsigned threads =
      32 * static_cast<unsigned>(std::clamp<index_t>((e.packs_per_line() + 63) / 64, 1, block_size / 32));
  for (index_t first = 0; first < e.batch;) {
    const index_t batch = std::min({e.batch - first, most_batch, meeting_place::most_blocks});
    const index_t most = std::max<index_t>(1, std::min<index_t>(1024, meeting_place::most_blocks / batch));
    const index_t lines = (e.lines + most - 1) / most;
    const dim3 grid(static_cast<unsigned>((e.lines + lines - 1) / lines), static_cast<unsigned>(batch));
    // Numbers of rows lie below each other, so a line of them is a column.
    rows_kernel<<<grid, threads, 0, stream>>>(guard, e, first, lines, row_task_of(sums, line_along::columns), out,
                                              row_task_of(numbers, line_along::rows),
                                              row_task_of(elements, line_along::columns), total, meet);
    first += batch;
  }
}

}  // namespace matopt::cuda
