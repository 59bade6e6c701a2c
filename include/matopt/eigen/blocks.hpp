// The loops under the elementwise and reduction verbs. They run over blocks of `width` elements, a number that the
// compiler knows, and over elements that lie side by side in the type of the arithmetic: loops that g++ and clang
// vectorise at -O2, without any flag. A line that is stored otherwise (another type, a stride, an end that is no whole
// block) goes through copies of a few hundred elements, which stay in the first cache.
//
//   lines::map<float>(f, begin, n, line...)               f(x_i, y_i, ...) for begin <= i < begin + n
//   lines::reduce<float, fn::sum>(f, begin, n, line...)   the combination of what f returns, in double
//
// Outputs come first and are stored back. A functor is compiled once for each type of the arithmetic, whatever the
// arguments' own types are.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <utility>

#include "../core/functors.hpp"
#include "lines.hpp"

// The loops' iterations do not depend on each other. clang says where it cannot vectorise one (a functor with a power,
// a logarithm), which is no fault of a user's program.
#if defined(__clang__)
#define MATOPT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) unroll(disable)")
#elif defined(__GNUC__)
#define MATOPT_INDEPENDENT _Pragma("GCC ivdep")
#else
#define MATOPT_INDEPENDENT
#endif
#if defined(__GNUC__)
#define MATOPT_KERNEL __attribute__((noinline, flatten))
#define MATOPT_INLINED __attribute__((always_inline)) inline
#else
#define MATOPT_KERNEL
#define MATOPT_INLINED inline
#endif
// Vectors of 32 bytes in programs that are compiled for any x86 processor, whose vectors have 16. There is no fused
// multiplication in AVX2 itself, so that the results are the same bits.
#if defined(__GNUC__) && defined(__x86_64__) && !defined(__AVX2__) && !defined(__CUDACC__)
#define MATOPT_AVX2 __attribute__((target("avx2")))
#endif

namespace MATOPT_NAMESPACE::lines {

inline constexpr index_t width = 32;          // elements per block
inline constexpr index_t staged = 256;        // elements of an argument that are copied at a time
inline constexpr index_t longest_sum = 2048;  // elements that are summed before the sums go on in double

// A block, on its way from memory before it is needed: several streams at once are more than processors foresee.
inline constexpr index_t ahead = 32 * width;
template <class T>
void fetch([[maybe_unused]] T* p) {
#if defined(__GNUC__)
  for (std::size_t line = 0; line < static_cast<std::size_t>(width) * sizeof(T); line += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(p) + line);
#endif
}

// An argument of a kernel: elements side by side in the type of the arithmetic, or one number.
template <class A>
struct output {
  A* p;
  output from(index_t i) const { return {p + i}; }
  void fetch(index_t i) const { lines::fetch(p + i); }
  A get(index_t i) const { return p[i]; }
  void put(index_t i, A x) const { p[i] = x; }
};
template <class A>
struct input {
  const A* p;
  input from(index_t i) const { return {p + i}; }
  void fetch(index_t i) const { lines::fetch(p + i); }
  A get(index_t i) const { return p[i]; }
  void put(index_t, A) const {}
};
template <class A>
struct number {
  A x;
  number from(index_t) const { return *this; }
  void fetch(index_t) const {}
  A get(index_t) const { return x; }
  void put(index_t, A) const {}
};

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif
// n is a multiple of `width`.
template <class A, class F, class... P>
MATOPT_INLINED void map_each_block(const F& functor, index_t n, P... p) {
  const F f = functor;  // nobody else's memory, so that its numbers stay in registers
  for (index_t block = 0; block < n; block += width) {
    (p.fetch(block + ahead), ...);
    MATOPT_INDEPENDENT
    for (index_t j = 0; j < width; ++j) {
      const auto element = [&](auto... x) {
        f(x...);
        (p.put(block + j, x), ...);
      };
      element(p.get(block + j)...);
    }
  }
}
#if defined(MATOPT_AVX2)
template <class A, class F, class... P>
MATOPT_KERNEL MATOPT_AVX2 void map_blocks_avx2(const F& f, index_t n, P... p) {
  map_each_block<A>(f, n, p...);
}
#endif
template <class A, class F, class... P>
MATOPT_KERNEL void map_blocks_anywhere(const F& f, index_t n, P... p) {
  map_each_block<A>(f, n, p...);
}
// The formulas of updates, which have four arguments or more, divide and take roots for longer than memory takes to
// deliver their arguments, unless the vectors are wide. Simpler formulas wait for memory with any vectors.
template <class A, class F, class... P>
void map_blocks(const F& f, index_t n, P... p) {
#if defined(MATOPT_AVX2)
  if constexpr (sizeof...(P) >= 4)
    if (__builtin_cpu_supports("avx2")) return map_blocks_avx2<A>(f, n, p...);
#endif
  map_blocks_anywhere<A>(f, n, p...);
}

// part[k width + j] is combined with the terms k of elements j, j + width, ... A maximum has nothing to do but this: it
// takes several blocks at a time.
template <class A, class R, class F, class... P>
MATOPT_KERNEL void reduce_blocks(const F& functor, index_t n, A* part, P... p) {
  const F f = functor;
  const auto terms_at = [&](index_t i) {
    const auto element = [&](auto... x) {
      const auto t = fn::as_terms(f(x...));
      (p.put(i, x), ...);
      return t;
    };
    return element(p.get(i)...);
  };
  index_t block = 0;
  if constexpr (std::is_same_v<R, fn::maximum> && fn::sums_of<F> == 1)
    for (; block + 4 * width <= n; block += 4 * width) {
      for (index_t k = 0; k < 4; ++k) (p.fetch(block + k * width + ahead), ...);
      MATOPT_INDEPENDENT
      for (index_t j = 0; j < width; ++j) {
        const index_t i = block + j;
        const A first = R::combine(A(terms_at(i).at[0]), A(terms_at(i + width).at[0]));
        const A second = R::combine(A(terms_at(i + 2 * width).at[0]), A(terms_at(i + 3 * width).at[0]));
        part[j] = R::combine(part[j], R::combine(first, second));
      }
    }
  for (; block < n; block += width) {
    (p.fetch(block + ahead), ...);
    MATOPT_INDEPENDENT
    for (index_t j = 0; j < width; ++j) {
      const auto t = terms_at(block + j);
      [&]<int... Term>(std::integer_sequence<int, Term...>) {
        ((part[Term * width + j] = R::combine(part[Term * width + j], static_cast<A>(t.at[Term]))), ...);
      }
      (std::make_integer_sequence<int, fn::sums_of<F>>{});
    }
  }
}

// `count` elements with a stride to `padded` ones side by side; the last is repeated.
template <class A, class T>
MATOPT_KERNEL void load(A* to, const T* from, index_t stride, index_t count, index_t padded) {
  using value = typename arithmetic<T>::type;
  index_t i = 0;
  if (stride == 1)
    for (; i + width <= count; i += width) {
      MATOPT_INDEPENDENT
      for (index_t j = 0; j < width; ++j) to[i + j] = static_cast<A>(static_cast<value>(from[i + j]));
    }
  for (; i < count; ++i) to[i] = static_cast<A>(static_cast<value>(from[i * stride]));
  for (; i < padded; ++i) to[i] = to[count - 1];
}
template <class A, class T>
MATOPT_KERNEL void store(const A* from, T* to, index_t stride, index_t count) {
  using value = typename arithmetic<T>::type;  // what a T is made of
  index_t i = 0;
  if (stride == 1)
    for (; i + width <= count; i += width) {
      MATOPT_INDEPENDENT
      for (index_t j = 0; j < width; ++j) to[i + j] = static_cast<T>(static_cast<value>(from[i + j]));
    }
  for (; i < count; ++i) to[i * stride] = static_cast<T>(static_cast<value>(from[i]));
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif

// Partial results of a reduction.
template <class A, class R, int Sums>
struct partial {
  alignas(64) A at[static_cast<std::size_t>(Sums * width)];

  partial() { clear(); }
  void clear() { std::fill(std::begin(at), std::end(at), R::template identity<A>()); }
  void combine(const partial& other, index_t lanes) {
    for (int k = 0; k < Sums; ++k)
      for (index_t j = 0; j < lanes; ++j) at[k * width + j] = R::combine(at[k * width + j], other.at[k * width + j]);
  }
  // Result k; the partial ones are used up.
  A whole(int k) { return halved<width / 2>(at + k * width); }

 private:
  template <index_t Half>
  static A halved(A* x) {
    if constexpr (Half == 0) {
      return x[0];
    } else {
      for (index_t j = 0; j < Half; ++j) x[j] = R::combine(x[j], x[j + Half]);
      return halved<Half / 2>(x);
    }
  }
};

// An argument of a line on its way to the kernels: where it lies, if it lies as they want it, else in a copy.
template <class A, class Line>
struct argument;
template <class A, class T>
struct argument<A, moving<T>> {
  using element = std::remove_const_t<T>;
  static constexpr bool is_output = !std::is_const_v<T>;
  using pointer = std::conditional_t<is_output, output<A>, input<A>>;

  const moving<T>& line;
  alignas(64) A copy[staged];
  bool copied = false;

  explicit argument(const moving<T>& l) : line(l) {}
  static bool direct(const moving<T>& l) { return std::is_same_v<element, A> && l.stride == 1; }
  static pointer whole(const moving<T>& l, index_t begin) {
    if constexpr (std::is_same_v<element, A>)
      return {l.p + begin};
    else
      return {nullptr};
  }
  pointer load(index_t begin, index_t count, index_t padded) {
    copied = !(direct(line) && count == padded);
    if (!copied) return whole(line, begin);
    lines::load<A, element>(copy, line.p + begin * line.stride, line.stride, count, padded);
    return {copy};
  }
  void store(index_t begin, index_t count) const {
    if constexpr (is_output)
      if (copied) lines::store<A, element>(copy, line.p + begin * line.stride, line.stride, count);
  }
};
template <class A, class T>
struct argument<A, constant<T>> {
  const constant<T>& line;
  explicit argument(const constant<T>& l) : line(l) {}
  static bool direct(const constant<T>&) { return true; }
  static number<A> whole(const constant<T>& l, index_t) { return {static_cast<A>(l.x)}; }
  number<A> load(index_t, index_t, index_t) const { return {static_cast<A>(line.x)}; }
  void store(index_t, index_t) const {}
};
template <class A>
struct argument<A, counting> {
  const counting& line;
  alignas(64) A copy[staged];
  explicit argument(const counting& l) : line(l) {}
  static bool direct(const counting&) { return false; }
  static input<A> whole(const counting&, index_t) { return {nullptr}; }
  input<A> load(index_t begin, index_t, index_t padded) {
    for (index_t i = 0; i < padded; ++i) copy[i] = static_cast<A>(line.start + (begin + i) * line.step);
    return {copy};
  }
  void store(index_t, index_t) const {}
};

// use(n, kernel arguments...) for one stretch of the line after the other; the arguments last for a whole number of
// blocks.
template <class A, class Use, class... L>
void stretches(index_t begin, index_t n, Use use, const L&... line) {
  const index_t whole = (argument<A, L>::direct(line) && ...) ? n / width * width : 0;
  if (whole > 0) use(whole, argument<A, L>::whole(line, begin)...);
  if (whole == n) return;
  const auto through_copies = [&](auto&&... copied) {
    for (index_t i = whole; i < n; i += staged) {
      const index_t count = std::min(staged, n - i), padded = (count + width - 1) / width * width;
      use(count, copied.load(begin + i, count, padded)...);
      (copied.store(begin + i, count), ...);
    }
  };
  through_copies(argument<A, L>(line)...);
}

template <class A, class F, class... L>
void map(const F& f, index_t begin, index_t n, const L&... line) {
  stretches<A>(
      begin, n, [&](index_t count, auto... p) { map_blocks<A>(f, (count + width - 1) / width * width, p...); },
      line...);
}

// The order of the sums is fixed by begin and n.
template <class A, class R, class F, class... L>
auto reduce(const F& f, index_t begin, index_t n, const L&... line) {
  constexpr int sums = fn::sums_of<F>;
  const index_t run = std::is_same_v<R, fn::maximum> ? n : longest_sum;
  std::array<double, sums> total;
  total.fill(R::template identity<double>());
  for (index_t done = 0; done < n; done += run) {
    partial<A, R, sums> part, last;
    stretches<A>(
        begin + done, std::min(run, n - done),
        [&](index_t count, auto... p) {
          const index_t whole = count / width * width;
          reduce_blocks<A, R>(f, whole, part.at, p...);
          if (whole == count) return;
          last.clear();
          reduce_blocks<A, R>(f, width, last.at, p.from(whole)...);
          part.combine(last, count - whole);  // what was only repeated does not count
        },
        line...);
    for (int k = 0; k < sums; ++k)
      total[static_cast<std::size_t>(k)] =
          R::combine(total[static_cast<std::size_t>(k)], static_cast<double>(part.whole(k)));
  }
  return total;
}

}  // namespace MATOPT_NAMESPACE::lines

#undef MATOPT_INDEPENDENT
#undef MATOPT_KERNEL
#undef MATOPT_INLINED
#undef MATOPT_AVX2
