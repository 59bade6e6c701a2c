// The direction of the strongest slices alone; the others wait in the buffer, which is the momentum.
//
//   M <- M + U                       slices: rows, or columns if m > n (slice_axis = shorter); rows always (rows)
//   select k = max(1, ceil(fraction slices)) slices with the largest sums of |M|, the lower number if two are equal
//   O = Inner(M_selected)            M_selected <- decay M_selected
//   u = O in the selected slices, and 0 in the others
//
// Dion2 (arXiv 2512.16928) has the shorter side; NorDion2, or Dion3, rows and a normalizer (neuron_norm). Follows
// microsoft/dion on one device, but for ties, which its code leaves open. Rows with a gradient of zeros are selected
// if there are not enough others, and stay zero. The buffer is its own, so the momentum before it has to be
// `no_momentum`. Selected slices are gathered and put back by products with a matrix of zeros and ones. State: 1 scalar
// per parameter. FLOPs: Inner's on k slices, 2 per parameter for the sums, 4 k per parameter for the products, and
// slices^2 comparisons. Needs: gemm, and what Inner needs, which keeps no state.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cmath>
#include <string_view>
#include <type_traits>

#include "../../core/policy.hpp"
#include "newton_schulz.hpp"

namespace MATOPT_NAMESPACE {

enum class slice_axis { shorter, rows };
constexpr auto enum_names(slice_axis) { return std::array<std::string_view, 2>{"shorter", "rows"}; }

namespace fn {
// sum |x|
struct absolute_sum {
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return math::abs(x);
  }
};
// 1 for each of the others that is larger than mine, or as large and has a lower number
struct ranks_before {
  template <class T>
  MATOPT_HD T operator()(T other, T mine, T other_number, T my_number) const {
    const T more = math::one_if_less(mine, other), less = math::one_if_less(other, mine);
    return more + (T(1) - more - less) * math::one_if_less(other_number, my_number);
  }
};
// m = decay x, or x of a place that is not selected
struct fade_selected {
  double decay, selected;
  template <class T>
  MATOPT_HD void operator()(T& m, T x, T place) const {
    const T fades = math::one_if_less(place, T(selected));
    m = (fades * T(decay) + (T(1) - fades)) * x;
  }
};
// x = 1 in the row that a place says, else 0
struct pick_place {
  template <class T>
  MATOPT_HD void operator()(T& x, T place, T row) const {
    x = math::max(T(0), T(1) - math::abs(place - row));
  }
};
}  // namespace fn

template <class Inner = newton_schulz<>>
requires std::is_same_v<state_for<Inner, float, float>, no_state>
struct sliced_polar {
  using decorates = Inner;
  static constexpr bool replaces_momentum = true, takes_norm = false, gives_parts = false, honours_rank = false;

  double fraction = 0.25, decay = 0.95;
  slice_axis axis = slice_axis::shorter;
  Inner inner{};

  static std::string name() { return "sliced_polar<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("slice_fraction", self.fraction, range{.low = 0, .high = 1, .low_open = true});
    visit("slice_decay", self.decay, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("slice_axis", self.axis);
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }

  // How many of `slices` are selected: no tolerance, 0.55 of 100 are 56.
  index_t selected(index_t slices) const {
    const auto k = static_cast<index_t>(std::ceil(fraction * static_cast<double>(slices)));
    return math::min(slices, math::max(index_t{1}, k));
  }

  template <class S, class C>
  struct state {
    view<S> buffer;
    no_state inner{};
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum");
  }

  template <class E, class St, class C>
  requires detail::can_orthogonalize<Inner, E, no_state>
  void orthogonalize(E& e, St& s, view<C> u) const {
    const auto frame = e.frame();
    const bool by_columns = axis == slice_axis::shorter && u.rows > u.cols;
    const view<C> m = by_columns ? u.t() : u;
    const auto buffer = by_columns ? s.buffer.t() : s.buffer;
    const index_t k = selected(m.rows);
    const double count = static_cast<double>(k);
    e.for_each(fn::add{}, u, as_const(s.buffer));
    if (k == m.rows) {
      e.for_each(fn::multiple{decay}, s.buffer, as_const(u));
      return detail::orthogonalize(inner, e, s.inner, u);
    }
    const view<C> place = places(e, m), pick = e.take(k, m.rows), chosen = e.take(k, m.cols);
    e.for_each(fn::fade_selected{decay, count}, buffer, as_const(m), per_row(place));
    e.for_each(fn::pick_place{}, pick, per_column(place.t()), row_number{});
    e.gemm(C(1), pick, m, C(0), chosen, chosen);
    detail::orthogonalize(inner, e, s.inner, chosen);
    e.gemm(C(1), pick.t(), chosen, C(0), m, m);
  }

 private:
  // How many rows of m come before each.
  template <class E, class C>
  view<C> places(E& e, view<C> m) const {
    const view<C> place = e.take(m.rows, 1), size = e.take(m.rows, 1);
    e.reduce_rows(fn::absolute_sum{}, size, as_const(m));
    view<const C> all = size.t();  // in every row
    all.rows = m.rows, all.row_stride = 0;
    e.reduce_rows(fn::ranks_before{}, place, all, per_row(size), column_number{}, row_number{});
    return place;
  }
};

}  // namespace MATOPT_NAMESPACE
