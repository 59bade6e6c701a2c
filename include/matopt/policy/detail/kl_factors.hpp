// What the rules of KL-Shampoo (arXiv 2509.03378) share: each factor averages the gradient whitened by the other one.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <limits>

#include "eigenbases.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// sum (x r)^2, of products that are held in [-largest, largest]
struct whitened_square {
  double largest;
  template <class T>
  MATOPT_HD T operator()(T x, T r) const {
    const T y = math::limited(x * r, T(largest));
    return y * y;
  }
};
// x = x r, which stays finite
struct multiply_limited {
  template <class T>
  MATOPT_HD void operator()(T& x, T r) const {
    x = math::limited(x * r, std::numeric_limits<T>::max());
  }
};
// r <- sqrt(beta r^2 + (1 - beta) n^2), without squares of either
struct follow_norm {
  double beta;
  template <class T>
  MATOPT_HD void operator()(T& r, T n) const {
    const T before = math::sqrt(T(beta)) * r, now = math::sqrt(T(1 - beta)) * n;
    const T larger = math::max(before, now), ratio = math::divide_or_zero(math::min(before, now), larger);
    r = larger * math::sqrt(T(1) + ratio * ratio);
  }
};
}  // namespace fn

namespace detail {

template <class C>
double largest_whitened(index_t m, index_t n) {
  return 1e-4 * std::sqrt(static_cast<double>(std::numeric_limits<C>::max())) / static_cast<double>(math::max(m, n));
}

// G Qr diag(r), whose product with its transpose is G S^-1 G^T for S = Qr diag(r)^-2 Qr^T; `roots` is one number per
// column of Qr. In scratch.
template <class E, class C>
view<C> whitened_by(E& e, view<C> g, view<C> basis, view<C> roots) {
  const view<C> h = e.take_like(g);
  e.gemm(C(1), g, basis, C(0), h, h);
  e.for_each(fn::multiply_limited{}, h, per_column(roots));
  limit_for_products(e, h);
  return h;
}

// The root mean square over time of ||G||_F.
template <class E, class C>
void follow_size(E& e, double beta, view<C> size, view<C> g) {
  const auto frame = e.frame();
  const view<C> now = e.take(1, 1);
  const auto norm = frobenius(e, g);
  e.for_each(fn::scaled_root{}, now, as_const(norm.scale), as_const(norm.squares));
  e.for_each(fn::follow_norm{beta}, size, as_const(now));
}

}  // namespace detail
}  // namespace MATOPT_NAMESPACE
