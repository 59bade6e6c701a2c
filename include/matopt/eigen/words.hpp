// Verbs on words of control, of which there is one for each matrix: a loop, without the kernels that floats have.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <type_traits>

#include "../core/backend.hpp"
#include "../core/broadcast.hpp"
#include "../core/functors.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class... V>
inline constexpr bool are_words = std::is_same_v<common_arithmetic<V...>, status_word>;

template <class T>
T& word(const view<T>& v, index_t i, index_t j, index_t b) {
  return v(i, j, v.batch == 1 ? 0 : b);
}
template <class T>
const T& word(const matrix_broadcast<T>& v, index_t, index_t, index_t b) {
  return word(v.values, 0, 0, b);
}
// use(i, j) for the words of a matrix of the batch
template <class T, class Use>
void each_word(const view<T>& shape, const Use& use) {
  for (index_t i = 0; i < shape.rows; ++i)
    for (index_t j = 0; j < shape.cols; ++j) use(i, j);
}

template <class F, class T, class... V>
void map_words(const status_word* guard, const F& f, const view<T>& first, const V&... rest) {
  for (index_t b = 0; b < first.batch; ++b)
    if (!guard || guard[b] == 0)
      each_word(first, [&](index_t i, index_t j) { f(word(first, i, j, b), word(rest, i, j, b)...); });
}
// The largest of what f makes of them.
template <class F, class T, class V>
void reduce_words(const status_word* guard, const F& f, const view<T>& out, const view<V>& x) {
  static_assert(std::is_same_v<fn::reduction_of<F>, fn::maximum>);
  for (index_t b = 0; b < x.batch; ++b) {
    if (guard && guard[b] != 0) continue;
    status_word most = 0;
    each_word(x, [&](index_t i, index_t j) { most = fn::maximum::combine(most, f(status_word{x(i, j, b)})); });
    out(0, 0, b) = most;
  }
}

}  // namespace MATOPT_NAMESPACE::detail
