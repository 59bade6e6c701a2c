// A penalty on the bits that the weights will cost: decoupled gradient descent on R = (1 / N) sum (|w| + eps)^nu.
//
//   w <- w - lr penalty_lambda (nu / N) sign(w) (|w| + eps)^(nu - 1)          after the inner step; N entries in W
//   rho(nu) = Gamma(1 / nu) Gamma(3 / nu) / Gamma(2 / nu)^2 = N sum w^2 / (sum |w|)^2
//
// BackSlash (arXiv 2504.16968): nu is the shape of the generalised Gaussian that the weights look like, 1 for Laplace,
// 2 for Gauss, estimated in each step over [0.1, 3]. Formulas after a published summary and a re-implementation, which
// applies the gradient decoupled, with lambda 2e3 and eps 1. Whether their lambda is multiplied by the learning rate could
// not be read; here lr multiplies it, as it does every decoupled term. penalty_estimate = false keeps nu at
// penalty_shape: 1 is an L1 penalty.
//
// The step goes to -w at most, so that no entry grows. In the published form it does where lr penalty_lambda is large
// beside N: a 1 x 1 matrix at a rate of 0.02 would become infinite in four steps.
//
// Zero entries stay zero. core/gaussian_shape.hpp finds nu; metrics/weight_rate.hpp measures R and nu of a matrix. State:
// nu of the last step, 1 scalar per matrix. FLOPs: about 40 per parameter (the power). Needs: elementwise verbs, reductions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/gaussian_shape.hpp"
#include "../detail/line_norms.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// sum |x| / s, with 0 / 0 taken as 0
struct scaled_sum_abs {
  template <class T>
  MATOPT_HD T operator()(T x, T s) const {
    return math::divide_or_zero(math::abs(x), s);
  }
};
// w = w - lr strength nu sign(w) (|w| + eps)^(nu - 1), and -w at most
struct rate_step {
  double strength, eps;
  template <class T>
  MATOPT_HD void operator()(T& w, T shape, T lr) const {
    const T step = lr * T(strength) * shape * math::pow(math::abs(w) + T(eps), shape - T(1));
    w -= math::sign(w) * math::min(step, T(2) * math::abs(w));
  }
};
}  // namespace fn

struct rate_penalty {
  double lambda = 2e3, eps = 1;
  bool estimate = true;
  double shape = 1;  // nu, where it is not estimated

  static constexpr bool takes_column_rates = true;

  static std::string name() { return "rate_penalty"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("penalty_lambda", self.lambda, range{.low = 0});
    visit("penalty_eps", self.eps, range{.low = 0, .low_open = true});
    visit("penalty_estimate", self.estimate);
    visit("penalty_shape", self.shape, range{.low = 0.1, .high = 3});
  }

  template <class S, class C>
  struct state {
    view<C> shape;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.shape = l.scalar("penalty_shape");
  }
  template <class E, class St, class W, class Rate>
  void after(E& e, St& s, view<W> w, Rate lr, double) const {
    const auto frame = e.frame();
    const double count = static_cast<double>(w.rows) * static_cast<double>(w.cols);
    if (estimate) {
      const auto sum = e.take(1, 1);
      const auto norm = detail::frobenius(e, w);
      e.reduce(fn::scaled_sum_abs{}, sum, as_const(w), per_matrix(norm.scale));
      e.for_each(fn::gaussian_shape{count}, s.shape, as_const(norm.squares), as_const(sum));
    } else {
      e.for_each(fn::set_constant{shape}, s.shape);
    }
    e.for_each(fn::rate_step{lambda / count, eps}, w, per_matrix(s.shape), lr);
  }
};

}  // namespace MATOPT_NAMESPACE
