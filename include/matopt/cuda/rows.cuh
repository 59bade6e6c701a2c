// The kernel of for_rows: a team of threads takes a row, reads it for its sums, lets one thread work on the numbers of
// the row, and goes over it once more. What the sums and the elements share stays in registers meanwhile.
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "../core/work.hpp"
#include "reduce.cuh"

namespace matopt::cuda {

// What only the arguments of rows can be: one number for each line, and a view that sums and elements share.
template <class T>
struct line_argument {
  using element = T;
  memory_argument<const T> numbers;
};
template <int Number, class T>
struct shared_argument : memory_argument<T> {};

template <class V>
auto row_argument(const V& v, line_along along) {
  return argument(v, along);
}
template <class T>
line_argument<T> row_argument(const row_broadcast<T>& v, line_along) {
  return {argument(v, line_along::columns)};
}
template <int Number, class T>
shared_argument<Number, T> row_argument(const shared_view<Number, view<T>>& v, line_along along) {
  return {argument(not_shared(v), along)};
}

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

// How often a thread takes packs of its row that it keeps; what is left of a longer row is read twice.
inline constexpr int times_kept = 3;
template <class A, class Team>
inline constexpr index_t most_kept = index_t{Team::size * pack_size} * packs_at_once<A>* times_kept;

// An argument in one row of a matrix after the other, and what a thread keeps of it: nothing of numbers ...
template <class A, class L>
struct number_in_row {
  L at;
  values<A, pack_size, packs_at_once<A>> one;

  __device__ void begin(index_t) {}
  __device__ void settle() {}
  template <class S>
  __device__ void load(int, const S&) {}
  template <class S>
  __device__ auto& packs(int, const S& s) {
    at.load(one, s);
    return one;
  }
  template <class S>
  __device__ void store(int, const S&) const {}
};
template <class A, class T>
struct number_of_row : number_in_row<A, located_number_of_matrix<T, pack_size>> {
  const T* first;
  index_t stride;
  const T* now;

  __device__ void begin(index_t line) { now = first + line * stride; }
  __device__ void settle() { this->at.value = *now; }
};
template <class A>
struct place_in_row : number_in_row<A, located_number<pack_size>> {
  __device__ void begin(index_t line) { this->at.first = line * this->at.line_stride; }
};
// ... and all packs of what lies in memory.
template <class A, class T>
struct elements_of_row {
  located<T, pack_size> at;
  T* first;
  values<A, pack_size, packs_at_once<A>> of[times_kept];

  __device__ void begin(index_t line) { at.base = first + line * at.line_stride; }
  __device__ void settle() {}
  template <class S>
  __device__ void load(int i, const S& s) {
    at.load(of[i], s);
  }
  template <class S>
  __device__ auto& packs(int i, const S&) {
    return of[i];
  }
  template <class S>
  __device__ void store(int i, const S& s) const {
    at.store(of[i], s);
  }
};
template <class A, int Number, class T>
struct shared_elements : elements_of_row<A, T> {};

template <class A, class T>
__device__ number_in_row<A, located_number_of_matrix<T, pack_size>> in_row(const matrix_argument<T>& v, index_t b,
                                                                           index_t lines) {
  return {locate<pack_size>(v, b, lines)};
}
template <class A>
__device__ place_in_row<A> in_row(const number_argument& v, index_t b, index_t lines) {
  return {{locate<pack_size>(v, b, lines)}};
}
template <class A, class T>
__device__ number_of_row<A, T> in_row(const line_argument<T>& v, index_t b, index_t) {
  return {{}, v.numbers.base(b), v.numbers.line_stride};
}
template <class A, class T>
__device__ elements_of_row<A, T> in_row(const memory_argument<T>& v, index_t b, index_t lines) {
  return {locate<pack_size>(v, b, lines), v.base(b)};
}
template <class A, int Number, class T>
__device__ shared_elements<A, Number, T> in_row(const shared_argument<Number, T>& v, index_t b, index_t lines) {
  return {in_row<A, T>(static_cast<const memory_argument<T>&>(v), b, lines)};
}

// Whether two are the same view.
template <class X, class Y>
inline constexpr bool same_view = false;
template <class A, int Number, class T, class U>
inline constexpr bool same_view<shared_elements<A, Number, T>, shared_elements<A, Number, U>> =
    std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>;

// A functor and its arguments in one row, which the threads of a team share. Lines of its spots count from the row.
template <class Team, class A, class F, class... X>
struct task_in_row {
  const F& f;
  index_t packs, length;
  std::tuple<X...> on;

  __device__ void begin(index_t line) {
    each([&](auto& x) { x.begin(line); });
  }
  // Reads what is kept, but for the views that `other` has read or will.
  template <class... Other>
  __device__ void load(const Other&...) {
    each([&](auto& x) {
      if constexpr (!(Other::template has<std::remove_cvref_t<decltype(x)>> || ...))
        each_kept([&](int i, const auto& s) { x.load(i, s); });
    });
  }
  // Takes over the views that `other` has read, and reads the numbers of the row.
  template <class... Other>
  __device__ void settle(const Other&... other) {
    each([&](auto& x) { x.settle(), (other.give(x), ...); });
  }
  template <class Y>
  __device__ void give(Y& to) const {
    std::apply([&](const auto&... x) { (give_one(to, x), ...); }, on);
  }
  template <class Y>
  static constexpr bool has = (same_view<X, Y> || ...);

  // take(f(...)) for the elements.
  template <class Take>
  __device__ void run(Take&& take) {
    std::apply(
        [&](auto&... x) {
          each_kept([&](int i, const auto& s) {
            evaluate<A>(f, s, take, x.packs(i, s)...);
            (x.store(i, s), ...);
          });
          constexpr index_t step = index_t{Team::size} * packs_at_once<A>;
          for (index_t at = Team::rank() + step * times_kept; at < packs; at += step)
            apply<A>(f, spots_from(at), take, x.at...);
        },
        on);
  }

 private:
  template <class Use>
  __device__ void each(Use&& use) {
    std::apply([&](auto&... x) { (use(x), ...); }, on);
  }
  template <class Use>
  __device__ void each_kept(Use&& use) const {
#pragma unroll
    for (int i = 0; i < times_kept; ++i)
      if (const index_t at = Team::rank() + index_t{i * Team::size} * packs_at_once<A>; at < packs)
        use(i, spots_from(at));
  }
  __device__ auto spots_from(index_t at) const {
    return packs_of_line<packs_at_once<A>>(extent{1, length, 1}, 0, at, Team::size);
  }
  template <class Y, class Z>
  __device__ static void give_one(Y& to, const Z& x) {
    if constexpr (same_view<Z, Y>)
#pragma unroll
      for (int i = 0; i < times_kept; ++i) to.of[i] = x.of[i];
  }
};

// What a kernel does, with its arguments as the kernel sees them.
template <class A, class F, class... V>
struct row_task {
  using arithmetic = A;
  using functor = F;
  static constexpr int views = (0 + ... + (requires { &V::line_stride; } && !std::is_same_v<V, number_argument>));
  F f;
  std::tuple<V...> on;

  template <class Team>
  __device__ auto in_rows(const extent& e, index_t b) const {
    return in_rows<Team>(e, b, std::index_sequence_for<V...>{});
  }
  // For element j of the only line. One thread does this while others wait: no more than it takes.
  __device__ void at(index_t b, index_t j) const {
    std::apply(
        [&](const auto&... v) {
          const auto run = [&](auto... x) {
            f(x...);
            (write(v, b, j, x), ...);
          };
          run(read(v, b, j)...);
        },
        on);
  }

 private:
  template <class Team, std::size_t... I>
  __device__ auto in_rows(const extent& e, index_t b, std::index_sequence<I...>) const {
    using on_rows = std::tuple<decltype(in_row<A>(std::get<I>(on), b, e.lines))...>;
    return task_in_row<Team, A, F, decltype(in_row<A>(std::get<I>(on), b, e.lines))...>{
        f, e.packs_per_line(), e.length, on_rows{in_row<A>(std::get<I>(on), b, e.lines)...}};
  }
  template <class T>
  __device__ static A read(const memory_argument<T>& v, index_t b, index_t j) {
    return to_arithmetic<A>(v.base(b)[j * v.step]);
  }
  template <class T>
  __device__ static A read(const matrix_argument<T>& v, index_t b, index_t) {
    return to_arithmetic<A>(v.of(b));
  }
  __device__ static A read(const number_argument& v, index_t, index_t j) { return static_cast<A>(j * v.step); }
  template <class Number>
  __device__ static void write(const Number&, index_t, index_t, A) {}
  template <class T>
  requires(!std::is_const_v<T>) __device__ static void write(const memory_argument<T>& v, index_t b, index_t j, A x) {
    v.base(b)[j * v.step] = static_cast<T>(static_cast<typename matopt::arithmetic<T>::type>(x));
  }
};
template <class F, class... V>
auto row_task_of(const work<F, V...>& w, line_along along) {
  return std::apply(
      [&](const auto&... v) {
        using A = common_arithmetic<decltype(not_shared(v))...>;
        return row_task<A, F, decltype(row_argument(v, along))...>{w.f, {row_argument(v, along)...}};
      },
      w.on);
}

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
