// work: a functor and what it works on, before it runs. Verbs that do several things at a time take them in this form.
//
//   const auto squares = work_on(fn::square{}, x), roots = work_on(fn::root{}, norm, sums);
//   e.for_rows(squares, sums, roots, work_on(fn::divide{}, y, x, per_row(norm)));
#pragma once
#include <tuple>

#include "scaled_view.hpp"

namespace matopt {

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
