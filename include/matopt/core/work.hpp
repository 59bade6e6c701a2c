// work: a functor and what it works on, before it runs. Verbs that do several things at a time take them in this form.
//
//   e.reduce_rows(square, sum, x)   as a work:   work_on(square, x)
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>
#include <tuple>

#include "scaled_view.hpp"

namespace MATOPT_NAMESPACE {

// An argument that several works of one verb take. By its number they know each other's: of a matrix memory is read
// once, and of a number per row what one work writes goes to the next. sum_result<k> is result k of a verb's sums.
//
//   e.for_rows(work_on(square, shared<0>(x)), sum, work_on(root, shared<1>(norm), sum_result<0>(sum)),
//              work_on(divide, y, shared<0>(x), shared<1>(per_row(norm))));
template <int Number, class V>
struct shared_view : V {};
template <int Number, class V>
shared_view<Number, V> shared(V v) {
  return {v};
}
template <int Result, class V>
shared_view<-1 - Result, V> sum_result(V v) {
  return {v};
}
inline constexpr int no_shared_number = std::numeric_limits<int>::min();
template <class V>
inline constexpr int shared_number = no_shared_number;
template <int Number, class V>
inline constexpr int shared_number<shared_view<Number, V>> = Number;
template <class V>
V not_shared(V v) {
  return v;
}
template <int Number, class V>
V not_shared(shared_view<Number, V> v) {
  return v;
}

namespace detail {
template <int Number, class G, class C>
inline constexpr bool is_scaled<shared_view<Number, scaled_view<G, C>>> = true;
template <int Number, class G, class C>
auto parts_of(shared_view<Number, scaled_view<G, C>> v) {
  return std::tuple{shared<Number>(v.values), v.scale};
}
}  // namespace detail

template <class F, class... V>
struct work {
  F f;
  std::tuple<V...> on;
};

template <class F, class... V>
auto work_on(F f, V... v) {
  if constexpr ((detail::is_scaled<V> || ...))
    return detail::spread(
        [&](auto... part) {
          using apart = detail::with_products<F, detail::is_scaled<V>...>;
          return work<apart, decltype(part)...>{apart(f), {part...}};
        },
        std::tuple_cat(detail::parts_of(v)...));
  else
    return work<F, V...>{f, {v...}};
}

}  // namespace MATOPT_NAMESPACE
