// The kernel of for_rows: a team of threads takes a row, reads it for its sums, lets one thread work on the numbers of
// the row, and goes over it once more.
#pragma once
#include <type_traits>
#include <utility>

#include "reduce.cuh"
#include "row_task.cuh"

namespace matopt::cuda {

// The threads that share a row: a warp, of several in a block, or a block.
template <int Size>
struct team {
  static_assert(Size % 32 == 0 && Size <= block_size);
  static constexpr int size = Size, of_block = Size == 32 ? 128 : Size, count = of_block / Size;
  __device__ static int rank() { return static_cast<int>(threadIdx.x) % Size; }
  __device__ static int number() { return static_cast<int>(threadIdx.x) / Size; }
  __device__ static void meet() {
    if constexpr (Size == 32)
      __syncwarp();
    else
      __syncthreads();
  }
  // Sums over the team, in the thread of rank 0. It has to meet before the next ones.
  template <class R, class A, int N>
  __device__ static void sum(double (&out)[N], A (&x)[N]) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
#pragma unroll
      for (int k = 0; k < N; ++k) x[k] = R::combine(x[k], __shfl_xor_sync(0xffffffffU, x[k], distance));
    for (int k = 0; k < N; ++k) out[k] = static_cast<double>(x[k]);
    if constexpr (Size > 32) {
      __shared__ double of_warp[Size / 32][N];
      for (int k = 0; k < N; ++k)
        if (rank() % 32 == 0) of_warp[rank() / 32][k] = out[k];
      __syncthreads();
      if (rank() == 0)
        for (int w = 1; w < Size / 32; ++w)
          for (int k = 0; k < N; ++k) out[k] = R::combine(out[k], of_warp[w][k]);
    }
  }
};

template <class A, class Team>
inline constexpr index_t most_kept = index_t{Team::size * pack_size} * packs_at_once<A>* times_kept;

struct no_total {};  // in place of the view that a reduction of the whole matrix goes to

// Threads of a multiprocessor: as many as leave them registers for the views they keep. Fewer would wait for memory.
template <class Elements>
inline constexpr int threads_at_once = Elements::views <= 2 ? 512 : 384;

template <class Team, class Sums, class T, class Numbers, class Elements, class Total>
__global__ void __launch_bounds__(Team::of_block, threads_at_once<Elements> / Team::of_block)
    rows_kernel(const status_word* guard, extent e, index_t first, index_t lines_per_block, Sums sums, view<T> out,
                Numbers numbers, Elements elements, Total total, meeting_place meet) {
  if (guard && *guard) return;
  using F = typename Sums::functor;
  using G = typename Elements::functor;
  using R = fn::reduction_of<F>;
  using A = typename Sums::arithmetic;
  constexpr int n = fn::sums_of<F>;
  const index_t b = first + blockIdx.y, begin = blockIdx.x * lines_per_block,
                end = min(begin + lines_per_block, e.lines);
  accumulator<typename Elements::arithmetic, fn::reduction_of<G>, fn::sums_of<G>> of_elements;
  auto summed = sums.template in_rows<Team>(e, b);
  auto changed = elements.template in_rows<Team>(e, b);
  for (index_t line = begin + Team::number(); line < end; line += Team::count) {
    summed.begin(line), changed.begin(line);
    summed.settle();
    summed.load(), changed.load(summed);
    accumulator<A, R, n> own;
    summed.run(own);
    double sum[n];
    Team::template sum<R>(sum, own.sum);
    if (Team::rank() == 0) {
      put_results<F, A>(out, line, b, sum);
      numbers.at(b, line);
    }
    Team::meet();
    changed.settle(summed);
    if constexpr (std::is_same_v<Total, no_total>)
      changed.run([](auto) {});
    else
      changed.run(of_elements);
  }
  if constexpr (!std::is_same_v<Total, no_total>)
    finish_matrix<G, typename Elements::arithmetic>(of_elements, total, b, meet);
}

template <class F, class... V, class T, class H, class... N, class G, class... E, class Total>
void rows(cudaStream_t stream, const status_word* guard, const extent& e, const work<F, V...>& sums, const view<T>& out,
          const work<H, N...>& numbers, const work<G, E...>& elements, const Total& total, const meeting_place& meet,
          index_t multiprocessors) {
  using A = common_arithmetic<decltype(not_shared(std::declval<V>()))...>;
  using task = decltype(row_task_of(elements, line_along::columns));
  const auto with = [&]<class Team>(Team) {
    for (index_t first = 0; first < e.batch;) {
      const index_t batch = std::min({e.batch - first, most_batch, meeting_place::most_blocks});
      // Four blocks after one another wherever there is place for one: rows enough that what a block does once is
      // little.
      const index_t blocks =
          std::min(4 * multiprocessors * threads_at_once<task> / Team::of_block, meeting_place::most_blocks);
      const index_t most = std::max<index_t>(1, blocks / batch);
      const index_t lines = ((e.lines + most - 1) / most + Team::count - 1) / Team::count * Team::count;
      const dim3 grid(static_cast<unsigned>((e.lines + lines - 1) / lines), static_cast<unsigned>(batch));
      // Numbers of rows lie below each other, so a line of them is a column.
      rows_kernel<Team><<<grid, Team::of_block, 0, stream>>>(
          guard, e, first, lines, row_task_of(sums, line_along::columns), out, row_task_of(numbers, line_along::rows),
          row_task_of(elements, line_along::columns), total, meet);
      first += batch;
    }
  };
  // The fewest threads that can keep a row, but where there are few rows, more of them.
  constexpr index_t rows_for_warps = 1 << 12;
  if (e.length <= most_kept<A, team<32>> && e.lines * e.batch >= rows_for_warps)
    with(team<32>{});
  else if (e.length <= most_kept<A, team<64>>)
    with(team<64>{});
  else if (e.length <= most_kept<A, team<128>>)
    with(team<128>{});
  else
    with(team<256>{});
}

}  // namespace matopt::cuda
