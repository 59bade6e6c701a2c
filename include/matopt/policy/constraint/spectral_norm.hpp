// Estimates of a weight's spectral norm and its singular directions, for the policies that bound it.
//
//   power_iteration   y = W v / ||W v||,  v = W^T y / ||W^T y||, repeated;  sigma = ||W^T y||;  begins at the last v
//   exact_norm        the leading triple of the singular value decomposition
//
// Such a policy takes the estimate as a template parameter, refuses what is none, and calls
//   estimate(pass, state, w, triple)        triple: sigma 1 x 1, u rows x 1, v cols x 1; u^T W v = sigma; 0 for W = 0
//
// The power iteration's sigma is never too large, and relatively too small by O((sigma_2 / sigma_1)^(4 iterations))
// from a random start; warm starts carry the accuracy from step to step. The first start is random and the same for
// every matrix of a shape. A start without any part along u_1 gets one by rounding only, so never if W is diagonal.
// W is divided by its largest entry first: no product overflows (by powers: unless that of a row of W and v does).
//
// Where the backend's products are narrower than the arithmetic (floats on a GPU), all iterations but the last go by
// powers of A = W^T W, or of W W^T if that is smaller, as many as multiply v by the same:
//
//   v <- A^4 v, as often as there are four iterations left;  then A^2 v, A v;      A / ||W||_F^2 and A^2 in 16 bits
//
// The last one is by W itself, in the arithmetic. sigma is u^T W v of two unit vectors, so the rounding of A enters it
// only squared. One pass over W for each of 40 becomes three products and four passes.
//
// State: cols scalars per matrix. FLOPs: 4 per parameter and iteration, or 2 m^2 (n + 2m), m <= n. Needs: gemm,
// random_normal; exact_norm: svd.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <utility>

#include "../detail/line_norms.hpp"
#include "../detail/random_block.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

template <class C>
struct singular_triple {
  view<C> value, left, right;
};

// clang-format off
template <class P>
concept norm_estimate = std::copyable<P> && requires { { P::name() } -> std::convertible_to<std::string>; } &&
  requires(const P p, detail::any_pass& e, state_for<P, float, float>& s, view<float> w, singular_triple<float> t) { p.estimate(e, s, w, t); };
// clang-format on

namespace fn {
// v = y, unless all of y is zero
struct replace_unless_zero {
  template <class T>
  MATOPT_HD void operator()(T& v, T y, T largest) const {
    if (largest > T(0)) v = y;
  }
};
// v = y, or 0 where n is 0
struct replace_or_zero {
  template <class T>
  MATOPT_HD void operator()(T& v, T y, T n) const {
    v = n > T(0) ? y : T(0);
  }
};
// x = x / n, with x / 0 taken as 0
struct over_norm {
  template <class T>
  MATOPT_HD void operator()(T& x, T n) const {
    x = math::divide_or_zero(x, n);
  }
};
}  // namespace fn

namespace detail {
// W / max |W| in the compute type, and max |W|.
template <class C>
struct scaled_copy {
  view<C> x, largest;
};
template <class E, class W>
auto take_scaled(E& e, view<W> w) {
  using C = typename E::compute;
  const scaled_copy<C> copy{e.take_like(w), e.take(1, 1)};
  e.reduce(fn::abs_max{}, copy.largest, as_const(w));
  e.for_each(fn::divide{}, copy.x, as_const(w), per_matrix(copy.largest));
  return copy;
}
// X = W / ||W||_F and up X X^T (X^T X of tall ones) in what products are best done in, and ||W||_F.
template <class E>
struct unit_products {
  using P = typename E::product;
  using C = typename E::compute;
  view<P> whole, gram;
  view<C> norm;
  double up = 1;  // the elements of X X^T are about 1/m, too small for the square of a float16; none is above 1

  template <class W>
  unit_products(E& e, view<W> w)
      : whole(e.template take_like<P>(w)),
        gram(e.template take<P>(math::min(w.rows, w.cols), math::min(w.rows, w.cols))),
        norm(e.take(1, 1)) {
    while (up < 16384 && 2 * up <= static_cast<double>(gram.rows)) up *= 2;
  }
  view<P> wide() const { return whole.rows > whole.cols ? whole.t() : whole; }
  template <class W>
  void form(E& e, view<W> w) const {
    const auto frame = e.frame();
    const auto n = frobenius(e, w);
    e.for_each(fn::scaled_root{}, norm, as_const(n.scale), as_const(n.squares));
    normalize_by(e, whole, as_const(w), normalizing_factors(e, n, 1, 0, true));
    e.gemm_symmetric(arithmetic_t<P>(up), wide(), wide().t(), arithmetic_t<P>(0), gram, gram);
  }
};
template <class E, class W>
auto take_triple(E& e, view<W> w) {
  return singular_triple<typename E::compute>{e.take(1, 1), e.take(w.rows, 1), e.take(w.cols, 1)};
}
}  // namespace detail

struct power_iteration {
  index_t iterations = 20;
  index_t seed = 0;

  static std::string name() { return "power_iteration"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("power_iterations", self.iterations, range{.low = 1, .high = 1000});
    visit("power_seed", self.seed, range{.low = 0, .high = 9007199254740992.0});
  }

  template <class S, class C>
  struct state {
    view<C> right;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.right = l.block("spectral_direction", l.column_count(), 1);
  }
  template <class E, class St, class W, class C>
  void estimate(E& e, St& s, view<W> w, const singular_triple<C>& t) const {
    const auto frame = e.frame();
    if (by_powers<E> && iterations > 4) {
      const detail::unit_products<E> formed(e, w);
      formed.form(e, w);
      return estimate(e, s, w, t, formed);
    }
    begin(e, s, t);
    iterate(e, w, t);
    e.for_each(fn::assign{}, s.right, as_const(t.right));
  }
  // By powers, given the products.
  template <class E, class St, class W, class C>
  void estimate(E& e, St& s, view<W> w, const singular_triple<C>& t, const detail::unit_products<E>& formed) const {
    begin(e, s, t);
    iterate_by_powers(e, w, t, formed);
    e.for_each(fn::assign{}, s.right, as_const(t.right));
  }

 private:
  // Whether products take so much less time than passes over W.
  template <class E>
  static constexpr bool by_powers = sizeof(typename E::product) < sizeof(typename E::compute);

  template <class E, class St, class C>
  void begin(E& e, St& s, const singular_triple<C>& t) const {
    const auto frame = e.frame();
    const auto known = e.take(1, 1);
    detail::random_block(e, t.right, static_cast<std::uint64_t>(seed));
    e.reduce(fn::abs_max{}, known, as_const(s.right));
    e.for_each(fn::replace_unless_zero{}, t.right, as_const(s.right), per_matrix(known));
  }
  template <class E, class W, class C>
  void iterate(E& e, view<W> w, const singular_triple<C>& t) const {
    const auto frame = e.frame();
    const auto [x, largest] = detail::take_scaled(e, w);
    for (index_t i = 0; i < iterations; ++i) {
      e.gemm(C(1), x, t.right, C(0), t.left, t.left);
      unit(e, t.left, t.value);
      e.gemm(C(1), x.t(), t.left, C(0), t.right, t.right);
      unit(e, t.right, t.value);
    }
    e.for_each(fn::multiply{}, t.value, as_const(largest));
  }
  template <class E, class W, class C>
  void iterate_by_powers(E& e, view<W> w, const singular_triple<C>& t, const detail::unit_products<E>& formed) const {
    using T = typename E::product;
    using A = arithmetic_t<T>;
    const auto frame = e.frame();
    const bool tall = w.rows > w.cols;
    const view<T>&whole = formed.whole, &one = formed.gram;
    const view<T> two = e.template take<T>(one.rows, one.rows), four = e.template take<T>(one.rows, one.rows);
    e.gemm_symmetric(A(1 / formed.up), one, one, A(0), two, two);
    const view<C> size = e.take(1, 1);
    detail::matrix_norm(e, size, two);
    e.for_each(fn::over_norm{}, two, per_matrix(size));
    e.gemm_symmetric(A(1), two, two, A(0), four, four);

    view<C> v = tall ? t.right : t.left, next = e.take_like(v);
    const auto along = [&](const auto& a, const view<C>& from, const view<C>& to) {
      e.reduce_rows(fn::product{}, to, as_const(a), per_column(from.t()));
    };
    if (!tall) {
      along(whole, t.right, v);  // a direction to begin with
      unit(e, v, t.value);
    }
    // A^4 and A^2 have norms between 1/m and 1 here: v stays in range for four of them.
    for (index_t left = iterations - 1, since = 0; left > 0; std::swap(v, next)) {
      const index_t power = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      along(power == 4 ? four : power == 2 ? two : one, v, next);
      if (++since % 4 == 0) unit(e, next, t.value);
      left -= power;
    }
    if (tall)
      along(w, v, t.left);
    else if (v.data != t.left.data)
      e.for_each(fn::assign{}, t.left, as_const(v));
    unit(e, t.left, t.value);
    along(w.t(), t.left, t.right);
    unit(e, t.right, t.value);
  }
  template <class E, class C>
  void unit(E& e, view<C> x, view<C> norm) const {
    detail::matrix_norm(e, norm, x);
    e.for_each(fn::over_norm{}, x, per_matrix(norm));
  }
};

struct exact_norm {
  static constexpr bool needs_svd = true;

  static std::string name() { return "exact_norm"; }
  template <class E, class St, class W, class C>
  void estimate(E& e, St&, view<W> w, const singular_triple<C>& t) const {
    const auto frame = e.frame();
    const auto [x, largest] = detail::take_scaled(e, w);
    const index_t q = math::min(w.rows, w.cols);
    const view<C> u = e.take(w.rows, q, true), s = e.take(q, 1), v = e.take(w.cols, q, true);
    e.svd(x, u, s, v);
    e.for_each(fn::assign{}, t.value, as_const(s.row_block(0, 1)));
    e.for_each(fn::multiply{}, t.value, as_const(largest));
    // zero has no directions, whatever the decomposition returns for it
    e.for_each(fn::replace_or_zero{}, t.left, as_const(u.col_block(0, 1)), per_matrix(t.value));
    e.for_each(fn::replace_or_zero{}, t.right, as_const(v.col_block(0, 1)), per_matrix(t.value));
  }
};

}  // namespace MATOPT_NAMESPACE
