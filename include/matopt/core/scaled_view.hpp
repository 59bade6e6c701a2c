// scaled_view: a matrix times one number, multiplied where it is read; no copy is stored.
//
//   scaled_view g{values, e.gradient_scale()};
//   e.reduce_rows(fn::square{}, out, g);
//   e.for_each(fn::add{}, u, g);
//   elementwise(f, m, update_slot{}, g)
//
// It stands where verbs of a pass and formulas take a view that they only read. The functor sees the product, in the
// arithmetic type of all arguments.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "broadcast.hpp"
#include "spread.hpp"

namespace MATOPT_NAMESPACE {

template <class G, class C>
struct scaled_view {
  view<const G> values;
  matrix_broadcast<C> scale;

  scaled_view t() const { return {values.t(), scale}; }
};
template <class G, class C>
scaled_view(view<const G>, matrix_broadcast<C>) -> scaled_view<G, C>;

template <class G, class C>
scaled_view<G, C> as_const(scaled_view<G, C> v) {
  return v;
}

namespace detail {
template <class V>
inline constexpr bool is_scaled = false;
template <class G, class C>
inline constexpr bool is_scaled<scaled_view<G, C>> = true;

// F with the product of two neighbouring arguments in the places that Product marks.
template <class F, bool... Product>
struct with_products : F {
  MATOPT_HD constexpr with_products(F f) : F(f) {}
  template <class T, class... Rest>
  MATOPT_HD auto operator()(T& first, Rest&... rest) const {
    T* const given[] = {&first, &rest...};
    T products[sizeof...(Product)];
    return call(given, products, std::make_index_sequence<sizeof...(Product)>{});
  }

 private:
  // Where argument i of F begins among those given.
  static constexpr std::size_t place(std::size_t i) {
    constexpr bool product[] = {Product...};
    std::size_t n = i;
    for (std::size_t k = 0; k < i; ++k) n += product[k];
    return n;
  }
  template <class T, std::size_t... I>
  MATOPT_HD auto call(T* const* given, T* products, std::index_sequence<I...>) const {
    ((products[I] = Product ? *given[place(I)] * *given[place(I) + Product] : T(0)), ...);
    return F::operator()(*(Product ? products + I : given[place(I)])...);
  }
};

template <class V>
auto parts_of(V v) {
  return std::tuple<V>{v};
}
template <class G, class C>
auto parts_of(scaled_view<G, C> v) {
  return std::tuple{v.values, v.scale};
}

// use(f, v...) with arguments that a backend knows: each scaled view as two.
template <class F, class Use, class... V>
void with_scales_apart(F f, Use use, V... v) {
  if constexpr ((is_scaled<V> || ...))
    spread([&](auto... part) { use(with_products<F, is_scaled<V>...>(f), part...); }, std::tuple_cat(parts_of(v)...));
  else
    use(f, v...);
}
}  // namespace detail

}  // namespace MATOPT_NAMESPACE
