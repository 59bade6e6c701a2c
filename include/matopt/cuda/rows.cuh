// The kernel of for_rows: a team of threads takes some rows, reads them for their sums, lets one thread each work on
// the numbers of a row, and goes over the rows once more, which by then are in the cache. Teams are warps; blocks where
// there are too few rows for that.
#pragma once
#include <tuple>

#include "../core/work.hpp"
#include "reduce.cuh"

namespace matopt::cuda {

// One number for each line, of which a team keeps the line's.
template <class T>
struct line_argument {
  using element = T;
  memory_argument<const T> numbers;
};
template <class V>
auto row_argument(const V& v, line_along along) {
  return argument(v, along);
}
template <class T>
line_argument<T> row_argument(const row_broadcast<T>& v, line_along) {
  return {argument(v, line_along::columns)};
}
template <int P, class V>
__device__ auto locate_in(const V& v, index_t b, index_t lines, index_t) {
  return locate<P>(v, b, lines);
}
template <int P, class T>
__device__ located_number_of_matrix<T, P> locate_in(const line_argument<T>& v, index_t b, index_t, index_t line) {
  return {v.numbers.base(b)[line * v.numbers.line_stride]};
}

// What a kernel does, with its arguments as the kernel sees them.
template <class A, class F, class... V>
struct row_task {
  using arithmetic = A;
  using functor = F;
  F f;
  std::tuple<V...> on;

  // take(f(...)) for the elements of a line, which the threads of a team share ...
  template <class Team, class Take>
  __device__ void over_line(const extent& e, index_t b, index_t line, Take&& take) const {
    constexpr int at_once = packs_at_once<A>;
    with_located<pack_size>(b, e.lines, line, [&](const auto&... located) {
      for (index_t at = Team::rank(); at < e.packs_per_line(); at += Team::size() * at_once)
        apply<A>(f, packs_of_line<at_once>(e, line, at, Team::size()), take, located...);
    });
  }
  // ... or for one element of the only line.
  __device__ void at(index_t b, index_t j) const {
    with_located<1>(b, 1, 0, [&](const auto&... located) {
      apply<A>(
          f, spots<1, 1>{{0}, {j}, {1}, true}, [](auto) {}, located...);
    });
  }

 private:
  template <int P, class Use>
  __device__ void with_located(index_t b, index_t lines, index_t line, Use&& use) const {
    std::apply([&](const auto&... v) { use(locate_in<P>(v, b, lines, line)...); }, on);
  }
};
template <class F, class... V>
auto row_task_of(const work<F, V...>& w, line_along along) {
  return std::apply(
      [&](const auto&... v) {
        return row_task<common_arithmetic<V...>, F, decltype(row_argument(v, along))...>{w.f,
                                                                                         {row_argument(v, along)...}};
      },
      w.on);
}

// The threads that share a row, and how many rows they take at a time. sum() is complete in the thread of rank 0.
struct warp_team {
  static constexpr int rows = 2;
  __device__ static int rank() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int size() { return 32; }
  __device__ static int number() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int count() { return block_size / 32; }
  __device__ static void meet() { __syncwarp(); }
  template <class R>
  __device__ static double sum(double x) {
    return over_warp<R>(x);
  }
};
struct block_team {
  static constexpr int rows = 1;
  __device__ static int rank() { return static_cast<int>(threadIdx.x); }
  __device__ static int size() { return block_size; }
  __device__ static int number() { return 0; }
  __device__ static int count() { return 1; }
  __device__ static void meet() { __syncthreads(); }
  template <class R>
  __device__ static double sum(double x) {
    return over_block<R>(x);
  }
};

struct no_total {};  // in place of the view that a reduction of the whole matrix goes to

template <class Team, class Sums, class T, class Numbers, class Elements, class Total>
__global__ void __launch_bounds__(block_size)
    rows_kernel(const status_word* guard, extent e, index_t first, index_t lines_per_block, Sums sums, view<T> out,
                Numbers numbers, Elements elements, Total total, meeting_place meet) {
  if (guard && *guard) return;
  using F = typename Sums::functor;
  using G = typename Elements::functor;
  using R = fn::reduction_of<F>;
  constexpr int n = fn::sums_of<F>;
  const index_t b = first + blockIdx.y, begin = blockIdx.x * lines_per_block,
                end = min(begin + lines_per_block, e.lines);
  accumulator<typename Elements::arithmetic, fn::reduction_of<G>, fn::sums_of<G>> of_elements;
  for (index_t top = begin + Team::number() * Team::rows; top < end; top += Team::count() * Team::rows) {
    const index_t bottom = min(top + Team::rows, end);
    for (index_t line = top; line < bottom; ++line) {
      accumulator<typename Sums::arithmetic, R, n> own;
      sums.template over_line<Team>(e, b, line, own);
      double sum[n];
      for (int k = 0; k < n; ++k) sum[k] = Team::template sum<R>(static_cast<double>(own.sum[k]));
      if (Team::rank() == 0) put_results<F, typename Sums::arithmetic>(out, line, b, sum);
    }
    Team::meet();
    if (top + Team::rank() < bottom) numbers.at(b, top + Team::rank());
    Team::meet();
    for (index_t line = top; line < bottom; ++line)
      if constexpr (std::is_same_v<Total, no_total>)
        elements.template over_line<Team>(e, b, line, [](auto) {});
      else
        elements.template over_line<Team>(e, b, line, of_elements);
  }
  if constexpr (!std::is_same_v<Total, no_total>)
    finish_matrix<G, typename Elements::arithmetic>(of_elements, total, b, meet);
}

template <class F, class... V, class T, class H, class... N, class G, class... E, class Total>
void rows(cudaStream_t stream, const status_word* guard, const extent& e, const work<F, V...>& sums, const view<T>& out,
          const work<H, N...>& numbers, const work<G, E...>& elements, const Total& total, const meeting_place& meet) {
  constexpr index_t rows_for_warps = 1 << 12;
  const auto with = [&]<class Team>(Team, index_t at_once) {
    for (index_t first = 0; first < e.batch;) {
      const index_t batch = std::min({e.batch - first, most_batch, meeting_place::most_blocks});
      const index_t most = std::max<index_t>(1, std::min<index_t>(1024, meeting_place::most_blocks / batch));
      const index_t lines = ((e.lines + most - 1) / most + at_once - 1) / at_once * at_once;
      const dim3 grid(static_cast<unsigned>((e.lines + lines - 1) / lines), static_cast<unsigned>(batch));
      // Numbers of rows lie below each other, so a line of them is a column.
      rows_kernel<Team><<<grid, block_size, 0, stream>>>(guard, e, first, lines, row_task_of(sums, line_along::columns),
                                                         out, row_task_of(numbers, line_along::rows),
                                                         row_task_of(elements, line_along::columns), total, meet);
      first += batch;
    }
  };
  if (e.lines * e.batch >= rows_for_warps)
    with(warp_team{}, block_size / 32 * warp_team::rows);
  else
    with(block_team{}, block_team::rows);
}

}  // namespace matopt::cuda
