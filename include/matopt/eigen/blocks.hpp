// The loops under the elementwise and reduction verbs. They run over blocks of `width` elements, a number that the
// compiler knows, and over elements that lie side by side in the type of the arithmetic: loops that g++ and clang
// vectorise at -O2, without any flag. A line that is stored otherwise (another type, a stride, an end that is no whole
// block) goes through copies of a few hundred elements, which stay in the first cache.
//
//   map_blocks<float>(f, n, p...)                         f(x_i, y_i, ...) for i < n
//   reduce_blocks<float, fn::sum>(f, n, part, p...)       the combination of what f returns
//
// Outputs come first and are stored back. Of a functor only these are compiled, once for each type of the arithmetic,
// whatever the arguments' own types are; what calls them sees neither (eigen/lines.hpp).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "../core/functors.hpp"
#include "../core/types.hpp"

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
#define MATOPT_INLINED_LAMBDA __attribute__((always_inline))
#else
#define MATOPT_KERNEL
#define MATOPT_INLINED inline
#define MATOPT_INLINED_LAMBDA
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

// What a kernel gets of each argument, whatever its type: where it lies, or the number that it is.
template <class A>
struct slot {
  A* p;
  A x;
};
// An argument of a kernel: elements side by side in the type of the arithmetic, or one number.
template <class A>
struct output {
  A* p;
  static output of(const slot<A>& s) { return {s.p}; }
  void fetch(index_t i) const { lines::fetch(p + i); }
  A get(index_t i) const { return p[i]; }
  void put(index_t i, A x) const { p[i] = x; }
};
template <class A>
struct input {
  const A* p;
  static input of(const slot<A>& s) { return {s.p}; }
  void fetch(index_t i) const { lines::fetch(p + i); }
  A get(index_t i) const { return p[i]; }
  void put(index_t, A) const {}
};
template <class A>
struct number {
  A x;
  static number of(const slot<A>& s) { return {s.x}; }
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
      const auto element = [&](auto... x) MATOPT_INLINED_LAMBDA {
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
  const auto terms_at = [&](index_t i) MATOPT_INLINED_LAMBDA {
    const auto element = [&](auto... x) MATOPT_INLINED_LAMBDA {
      const auto t = fn::as_terms(f(x...));
      (p.put(i, x), ...);
      return t;
    };
    return element(p.get(i)...);
  };
  index_t block = 0;
  if constexpr (std::is_same_v<R, fn::maximum> && fn::sums_of<F> == 1)
    for (; block + 4 * width <= n; block += 4 * width) {
      if constexpr (sizeof...(P) > 1)  // one stream is foreseen
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

}  // namespace MATOPT_NAMESPACE::lines

#undef MATOPT_INDEPENDENT
#undef MATOPT_KERNEL
#undef MATOPT_INLINED
#undef MATOPT_AVX2
