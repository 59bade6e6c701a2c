// The loops under the elementwise and reduction verbs: for every element of a line call the functor. A line runs along
// the shorter stride; arguments that are constant along it are loaded once, so that contiguous lines vectorise.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../core/broadcast.hpp"
#include "../core/functors.hpp"
#include "../core/types.hpp"

namespace matopt::lines {

enum class axis { rows, columns };  // what a line runs over: the rows of one column, or the columns of one row

// One argument along one line. `get` gives it to the functor in the arithmetic type, `put` stores it back.
template <class T, bool Contiguous>
struct moving {
  using value = typename arithmetic<T>::type;
  T* p;
  index_t stride;
  value get(index_t i) const { return static_cast<value>(p[Contiguous ? i : i * stride]); }
  void put(index_t i, value x) const {
    if constexpr (!std::is_const_v<T>) p[Contiguous ? i : i * stride] = static_cast<T>(x);
  }
};
template <class T>
struct constant {
  using value = typename arithmetic<T>::type;
  value x;
  value get(index_t) const { return x; }
  void put(index_t, value) const {}
};

struct counting {  // from `start` in steps of 0 or 1
  using value = double;
  index_t start, step;
  value get(index_t i) const { return static_cast<value>(start + i * step); }
  void put(index_t, value) const {}
};

template <class T>
constexpr bool is_output = false;
template <class T>
constexpr bool is_output<view<T>> = !std::is_const_v<T>;

// The matrix of a broadcast that serves matrix b.
template <class T>
const T* base_of(const view<const T>& v, index_t b) {
  return v.base(v.batch == 1 ? 0 : b);
}

template <axis Along, bool Contiguous, class T>
auto line(const view<T>& v, index_t b, index_t at) {
  return Along == axis::columns ? moving<T, Contiguous>{v.base(b) + at * v.row_stride, v.col_stride}
                                : moving<T, Contiguous>{v.base(b) + at * v.col_stride, v.row_stride};
}
template <axis Along, bool Contiguous, class T>
auto line(const row_broadcast<T>& v, index_t b, index_t at) {
  if constexpr (Along == axis::columns)
    return constant<T>{static_cast<typename arithmetic<T>::type>(base_of(v.values, b)[at * v.values.row_stride])};
  else
    return moving<const T, Contiguous>{base_of(v.values, b), v.values.row_stride};
}
template <axis Along, bool Contiguous, class T>
auto line(const column_broadcast<T>& v, index_t b, index_t at) {
  if constexpr (Along == axis::rows)
    return constant<T>{static_cast<typename arithmetic<T>::type>(base_of(v.values, b)[at * v.values.col_stride])};
  else
    return moving<const T, Contiguous>{base_of(v.values, b), v.values.col_stride};
}
template <axis Along, bool Contiguous, class T>
auto line(const matrix_broadcast<T>& v, index_t b, index_t) {
  return constant<T>{static_cast<typename arithmetic<T>::type>(*base_of(v.values, b))};
}

template <axis Along, bool Contiguous>
auto line(row_number, index_t, index_t at) {
  return Along == axis::columns ? counting{at, 0} : counting{0, 1};
}
template <axis Along, bool Contiguous>
auto line(column_number, index_t, index_t at) {
  return Along == axis::columns ? counting{0, 1} : counting{at, 0};
}

template <axis Along, class T>
bool contiguous(const view<T>& v) {
  return Along == axis::columns ? v.row_contiguous() : v.col_contiguous();
}
template <axis Along, class T>
bool contiguous(const row_broadcast<T>& v) {
  return Along == axis::columns || v.values.row_stride == 1 || v.values.rows == 1;
}
template <axis Along, class T>
bool contiguous(const column_broadcast<T>& v) {
  return Along == axis::rows || v.values.col_stride == 1 || v.values.cols == 1;
}
template <axis Along, class T>
bool contiguous(const matrix_broadcast<T>&) {
  return true;
}

template <axis Along>
bool contiguous(row_number) {
  return true;
}
template <axis Along>
bool contiguous(column_number) {
  return true;
}

// f(x_i, y_i, ...) for i < n; outputs come first and are stored back. All arguments meet in one arithmetic type.
// clang vectorises what it can of these loops, and would warn of each functor with branches or calls, where it cannot.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif
template <class A, class F, class... L>
void apply(const F& f, index_t n, const L&... line) {
#if defined(__clang__)
#pragma clang loop vectorize(enable)
#elif defined(__GNUC__)
#pragma GCC ivdep
#endif
  for (index_t i = 0; i < n; ++i) {
    const auto element = [&](auto... x) {
      f(x...);
      (line.put(i, static_cast<typename L::value>(x)), ...);
    };
    element(static_cast<A>(line.get(i))...);
  }
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif

// The combination of f(x_i, y_i, ...) over i < n: in blocks, of which each has sixteen interleaved partial results in
// A, and then in double. The order is fixed and vectorises, and no partial result adds up so many terms that its
// rounding counts: 2^26 equal terms have a sum right to 1e-6. Outputs among the arguments are stored back.
template <class A, class R, class F, class... L>
auto reduce(const F& f, index_t n, const L&... line) {
  constexpr index_t lanes = 16, block = 64 * lanes;
  constexpr int sums = fn::sums_of<F>;
  A part[sums][lanes];
  const auto take = [&](index_t i, index_t lane) {
    const auto element = [&](auto... x) {
      const auto t = fn::as_terms(f(x...));
      (line.put(i, static_cast<typename L::value>(x)), ...);
      return t;
    };
    const auto t = element(static_cast<A>(line.get(i))...);
    for (int k = 0; k < sums; ++k) part[k][lane] = R::combine(part[k][lane], static_cast<A>(t.at[k]));
  };
  fn::terms<double, sums> out;
  for (auto& x : out.at) x = R::template identity<double>();
  for (index_t i = 0; i < n;) {
    const index_t end = i + block < n ? i + block : n;
    for (auto& row : part)
      for (auto& p : row) p = R::template identity<A>();
    for (; i + lanes <= end; i += lanes)
      for (index_t j = 0; j < lanes; ++j) take(i + j, j);
    for (; i < end; ++i) take(i, i % lanes);
    for (int k = 0; k < sums; ++k) {
      for (index_t width = lanes / 2; width > 0; width /= 2)
        for (index_t j = 0; j < width; ++j) part[k][j] = R::combine(part[k][j], part[k][j + width]);
      out.at[k] = R::combine(out.at[k], static_cast<double>(part[k][0]));
    }
  }
  return out;
}

}  // namespace matopt::lines
