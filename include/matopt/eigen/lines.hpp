// Elementwise verbs and reductions along one line, with the types of functor and arguments forgotten, so that this is
// compiled once for each type of the arithmetic.
//
//   map(kernel, &f, begin, n, lines, count, direct)                    f(x_i, y_i, ...) for begin <= i < begin + n
//   reduce<A, fn::sum>(kernel, &f, total, 1, begin, n, lines, count, direct)    total, and the sum of f, in double
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "blocks.hpp"

namespace MATOPT_NAMESPACE::lines {

// Partial results of a reduction.
inline constexpr int most_sums = 8;
template <class A, class R>
struct partial {
  alignas(64) A at[static_cast<std::size_t>(most_sums * width)];
  int sums;

  explicit partial(int count) : sums(count) {}
  void clear() { std::fill(at, at + sums * width, R::template identity<A>()); }
  void combine(const partial& other, index_t lanes) {
    for (int k = 0; k < sums; ++k)
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

inline constexpr int most_arguments = 32;

// How elements of a type become numbers of the arithmetic, and back. Compiled once for each type, for all verbs.
template <class A>
struct element_kind {
  std::size_t size;
  bool is_arithmetic;  // they are such numbers
  void (*load)(A* to, const void* from, index_t stride, index_t count, index_t padded);
  void (*store)(const A* from, void* to, index_t stride, index_t count);
};
template <class A, class T>
struct elements {
  static void load(A* to, const void* from, index_t stride, index_t count, index_t padded) {
    lines::load<A, T>(to, static_cast<const T*>(from), stride, count, padded);
  }
  static void store(const A* from, void* to, index_t stride, index_t count) {
    lines::store<A, T>(from, static_cast<T*>(to), stride, count);
  }
  static constexpr element_kind<A> kind{sizeof(T), std::is_same_v<T, A>, load, store};
};

// An argument along one line: elements with a stride, one number, or the numbers from `start` in steps of 0 or 1.
template <class A>
struct line {
  const element_kind<A>* kind;  // of the elements; null if it has none
  std::byte* p;
  index_t stride;
  bool is_output, counts;
  A x;
  index_t start, step;

  static line of_number(A x) { return {nullptr, nullptr, 0, false, false, x, 0, 0}; }
  static line of_counts(index_t start, index_t step) { return {nullptr, nullptr, 0, false, true, A(0), start, step}; }

  // It lies as the kernels want it.
  bool direct() const { return kind ? kind->is_arithmetic && stride == 1 : !counts; }
  slot<A> in_place(index_t i) const { return {kind ? reinterpret_cast<A*>(p) + i : nullptr, x}; }
  std::byte* at(index_t i) const { return p + i * stride * static_cast<index_t>(kind->size); }

  // Elements i to i + count, or a copy of them, the last repeated; returns whether it is a copy.
  bool load(slot<A>& s, A* copy, index_t i, index_t count, index_t padded) const {
    if (direct() && (!kind || count == padded)) {
      s = in_place(i);
      return false;
    }
    s = {copy, x};
    if (kind)
      kind->load(copy, at(i), stride, count, padded);
    else
      for (index_t j = 0; j < padded; ++j) copy[j] = static_cast<A>(start + (i + j) * step);
    return true;
  }
};

// use(closure, n, slots) for one stretch of the line after the other; the arguments last for a whole number of blocks.
// `direct`: each line is.
template <class A>
using use_stretch = void (*)(const void* closure, index_t n, const slot<A>* s);

template <class A>
[[gnu::noinline]] void through_copies(index_t begin, index_t n, const line<A>* l, int count, const void* closure,
                                      use_stretch<A> use) {
  alignas(64) A copy[most_arguments][staged];
  slot<A> s[most_arguments];
  bool copied[most_arguments];
  for (index_t i = 0; i < n; i += staged) {
    const index_t some = std::min(staged, n - i), padded = (some + width - 1) / width * width;
    for (int k = 0; k < count; ++k) copied[k] = l[k].load(s[k], copy[k], begin + i, some, padded);
    use(closure, some, s);
    for (int k = 0; k < count; ++k)
      if (copied[k] && l[k].is_output) l[k].kind->store(copy[k], l[k].at(begin + i), l[k].stride, some);
  }
}
template <class A>
[[gnu::noinline]] void stretches(index_t begin, index_t n, const line<A>* l, int count, bool direct,
                                 const void* closure, use_stretch<A> use) {
  const index_t whole = direct ? n / width * width : 0;
  if (whole > 0) {
    slot<A> s[most_arguments];
    for (int k = 0; k < count; ++k) s[k] = l[k].in_place(begin);
    use(closure, whole, s);
  }
  if (whole < n) through_copies(begin + whole, n - whole, l, count, closure, use);
}

// The kernels of a functor with its type, and the types of its arguments, forgotten; n is a multiple of `width`.
template <class A>
using map_kernel = void (*)(const void* functor, index_t n, const slot<A>* s);
template <class A>
using reduce_kernel = void (*)(const void* functor, index_t n, A* part, const slot<A>* s);

template <class A, class F, class... P>
void map_slots(const void* functor, index_t n, const slot<A>* s) {
  [&]<std::size_t... Place>(std::index_sequence<Place...>) {
    map_blocks<A>(*static_cast<const F*>(functor), n, P::of(s[Place])...);
  }
  (std::index_sequence_for<P...>{});
}
template <class A, class F, class... P>
void reduce_slots(const void* functor, index_t n, A* part, const slot<A>* s) {
  [&]<std::size_t... Place>(std::index_sequence<Place...>) {
    reduce_blocks<A, fn::reduction_of<F>>(*static_cast<const F*>(functor), n, part, P::of(s[Place])...);
  }
  (std::index_sequence_for<P...>{});
}

template <class A>
void map(map_kernel<A> kernel, const void* functor, index_t begin, index_t n, const line<A>* l, int count,
         bool direct) {
  const auto use = [&](index_t some, const slot<A>* s) { kernel(functor, (some + width - 1) / width * width, s); };
  stretches<A>(begin, n, l, count, direct, &use, [](const void* closure, index_t some, const slot<A>* s) {
    (*static_cast<decltype(&use)>(closure))(some, s);
  });
}

// Adds to `total`, of so many sums. Their order is fixed by begin and n.
template <class A, class R>
[[gnu::noinline]] void reduce(reduce_kernel<A> kernel, const void* functor, double* total, int sums, index_t begin,
                              index_t n, const line<A>* l, int count, bool direct) {
  const index_t run = std::is_same_v<R, fn::maximum> ? n : longest_sum;
  for (index_t done = 0; done < n; done += run) {
    partial<A, R> part(sums), last(sums);
    part.clear();
    const auto use = [&](index_t some, const slot<A>* s) {
      const index_t whole = some / width * width;
      kernel(functor, whole, part.at, s);
      if (whole == some) return;
      slot<A> rest[most_arguments];
      for (int k = 0; k < count; ++k) rest[k] = {s[k].p ? s[k].p + whole : nullptr, s[k].x};
      last.clear();
      kernel(functor, width, last.at, rest);
      part.combine(last, some - whole);  // what was only repeated does not count
    };
    stretches<A>(
        begin + done, std::min(run, n - done), l, count, direct, &use,
        [](const void* closure, index_t some, const slot<A>* s) { (*static_cast<decltype(&use)>(closure))(some, s); });
    for (int k = 0; k < sums; ++k) total[k] = R::combine(total[k], static_cast<double>(part.whole(k)));
  }
}

}  // namespace MATOPT_NAMESPACE::lines
