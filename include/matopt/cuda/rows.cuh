// The kernel of for_rows: a team of threads reads a row and its numbers, sums, works on the numbers, and goes over the
// row once more. Memory is waited for once a row.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <type_traits>
#include <utility>

#include "reduce.cuh"
#include "row_task.cuh"

namespace MATOPT_NAMESPACE::cuda {

// The threads that share a row: a warp, of several in a block, or a block.
template <int Size>
struct team {
  static_assert(Size % 32 == 0 && Size <= block_size);
  static constexpr int size = Size, of_block = Size == 32 ? 128 : Size, count = of_block / Size;
  __device__ static int rank() { return static_cast<int>(threadIdx.x) % Size; }
  __device__ static int number() { return static_cast<int>(threadIdx.x) / Size; }
  // Sums over the team, in all of its threads. `turn` is another one than the last time: who is quick writes its next
  // sums where nobody reads.
  template <class R, class A, int N>
  __device__ static void sum(double (&out)[N], A (&x)[N], int turn) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
#pragma unroll
      for (int k = 0; k < N; ++k) x[k] = R::combine(x[k], __shfl_xor_sync(0xffffffffU, x[k], distance));
    if constexpr (Size == 32) {
      __syncwarp();  // all have read their numbers before one writes
      for (int k = 0; k < N; ++k) out[k] = static_cast<double>(x[k]);
    } else {
      __shared__ double of_warp[2][Size / 32][N];
      for (int k = 0; k < N; ++k)
        if (rank() % 32 == 0) of_warp[turn][rank() / 32][k] = static_cast<double>(x[k]);
      __syncthreads();
      for (int k = 0; k < N; ++k) {
        out[k] = of_warp[turn][0][k];
        for (int w = 1; w < Size / 32; ++w) out[k] = R::combine(out[k], of_warp[turn][w][k]);
      }
    }
  }
};

template <class A, class Team>
inline constexpr index_t most_kept = index_t{Team::size * pack_size} * packs_kept<A>;

struct no_total {};  // in place of the view that a reduction of the whole matrix goes to

inline constexpr int threads_at_once = 512;  // of a multiprocessor: more would have no registers for what they keep

// All rows of a block; what the sums, the formula on numbers and the elements do is one template for each row.
template <bool Whole, class Team, class F, class A, class T, class Summed, class Numbers, class Changed, class Take>
__device__ void work_on_rows(Summed& summed, const view<T>& out, Numbers& numbers, Changed& changed, Take&& take,
                             index_t b, index_t begin, index_t end) {
  constexpr int n = fn::sums_of<F>;
  using R = fn::reduction_of<F>;
  int turn = 0;
  for (index_t line = begin + Team::number(); line < end; line += Team::count, turn ^= 1) {
    summed.template load<Whole>(line), changed.template load<Whole>(line, summed), numbers.load(line);
    accumulator<A, R, n> own;
    summed.template run<Whole>(own);
    double sum[n];
    Team::template sum<R>(sum, own.sum, turn);
    const auto results = results_of_row<T>(fn::finish<F, A>(sum));
    numbers.run(results);
    if (Team::rank() == 0) {
      for (int k = 0; k < results.count; ++k) out(line, k, b) = results.at[k];
      numbers.store(line);
    }
    changed.take(summed, results, numbers);
    changed.template run<Whole>(take);
  }
}

template <class Team, class Sums, class T, class Numbers, class Elements, class Total>
__global__ void __launch_bounds__(Team::of_block, threads_at_once / Team::of_block)
    rows_kernel(const status_word* guard, extent e, index_t first, index_t lines_per_block, Sums sums, view<T> out,
                Numbers numbers, Elements elements, Total total, meeting_place meet) {
  using F = typename Sums::functor;
  using G = typename Elements::functor;
  if (guard && guard[first + blockIdx.y]) return;
  const index_t b = first + blockIdx.y, begin = blockIdx.x * lines_per_block,
                end = min(begin + lines_per_block, e.lines);
  accumulator<typename Elements::arithmetic, fn::reduction_of<G>, fn::sums_of<G>> of_elements;
  auto summed = sums.template in_rows<Team>(e, b);
  auto changed = elements.template in_rows<Team>(e, b);
  auto of_row = numbers.numbers(b);
  if (summed.wide(e.lines) && changed.wide(e.lines))
    work_on_rows<true, Team, F, typename Sums::arithmetic>(summed, out, of_row, changed, of_elements, b, begin, end);
  else
    work_on_rows<false, Team, F, typename Sums::arithmetic>(summed, out, of_row, changed, of_elements, b, begin, end);
  if constexpr (!std::is_same_v<Total, no_total>)
    finish_matrix<G, typename Elements::arithmetic>(of_elements, total, b, meet);
}

template <class F, class... V, class T, class H, class... N, class G, class... E, class Total>
void rows(cudaStream_t stream, const status_word* guard, const extent& e, const work<F, V...>& sums, const view<T>& out,
          const work<H, N...>& numbers, const work<G, E...>& elements, const Total& total, const meeting_place& meet,
          index_t multiprocessors) {
  using A = common_arithmetic<decltype(not_shared(std::declval<V>()))...>;
  const auto with = [&]<class Team>(Team) {
    for (index_t first = 0; first < e.batch;) {
      const index_t batch = std::min({e.batch - first, most_batch, meeting_place::most_blocks});
      // Four blocks after one another wherever there is place for one: rows enough that what a block does once is
      // little.
      const index_t blocks =
          std::min(4 * multiprocessors * threads_at_once / Team::of_block, meeting_place::most_blocks);
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

}  // namespace MATOPT_NAMESPACE::cuda
