// work: a functor and what it works on, before it runs. Verbs that do several things at a time take them in this form.
//
//   const auto squares = work_on(fn::square{}, x), roots = work_on(fn::root{}, norm, sums);
//   e.for_rows(squares, sums, roots, work_on(fn::divide{}, y, x, per_row(norm)));
#pragma once
#include <tuple>

#include "scaled_view.hpp"

namespace matopt {

// A view that several works of one verb take; by its number they know each other's, and memory is read once.
//
//   e.for_rows(work_on(fn::square{}, shared<0>(x)), sums, roots, work_on(fn::divide{}, y, shared<0>(x),
//   per_row(norm)));
template <int Number, class V>
struct shared_view : V {};
template <int Number, class V>
shared_view<Number, V> shared(V v) {
  return {v};
}
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
    return std::apply(
        [&](auto... part) {
          using apart = detail::with_products<F, detail::is_scaled<V>...>;
          return work<apart, decltype(part)...>{apart(f), {part...}};
        },
        std::tuple_cat(detail::parts_of(v)...));
  else
    return work<F, V...>{f, {v...}};
}

}  // namespace matopt
