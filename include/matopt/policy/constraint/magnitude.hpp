// How the row magnitudes g of Muown move, given their gradient d = dL/dg (one number per row): a formula with g in the
// place of the update.
//
//   adam_magnitude    m <- b1 m + (1 - b1) d;  v <- b2 v + (1 - b2) d^2;  g <- g - lr (m / c1) / (sqrt(v / c2) + eps)
//   fixed_magnitude   g stays
//   sgd_magnitude     g <- g - lr d                           grows to 65536 at most, however large d is
//   sign_magnitude    g <- g - lr sign(b1 m + (1 - b1) d);  m <- b2 m + (1 - b2) d
//                     signum_magnitude: b1 = b2 = 0.9;  lion_magnitude: b1 = 0.9, b2 = 0.99
//
// Muown (arXiv 2605.10797, Algorithm 1) uses Adam; the others are the ablations of its official code. State: 0 to 2
// scalars per row.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "../momentum/adam_direction.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
struct adam_step {
  double beta1, beta2, eps, largest;
  template <class T>
  MATOPT_HD void operator()(T& g, T& m, T& v, T d, T c1, T c2, T lr) const {
    T u;
    adam{beta1, beta2, eps, largest, true}(m, v, u, d, c1, c2);
    g -= lr * u;  // Muown Alg. 1: Adam's step of the magnitude
  }
};
// g - lr d, but |g| does not grow beyond `most`: with a larger weight the next products with a gradient could overflow
struct sgd_step {
  double most;
  template <class T>
  MATOPT_HD void operator()(T& g, T d, T lr) const {
    const T limit = math::max(math::abs(g), T(most));
    g = math::max(-limit, math::min(g - lr * d, limit));
  }
};
// the step takes the sign of `look m + (1 - look) d`, the mean keeps `keep m + (1 - keep) d`
struct sign_step {
  double look, keep;
  template <class T>
  MATOPT_HD void operator()(T& g, T& m, T d, T lr) const {
    g -= lr * math::sign(T(look) * m + T(1 - look) * d);
    m = T(keep) * m + T(1 - keep) * d;
  }
};
}  // namespace fn

struct adam_magnitude {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;

  static std::string name() { return "adam_magnitude"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true});
    visit("eps", self.eps, range{.low = 0, .low_open = true});
  }
  template <class S, class C>
  struct state {
    view<C> m, v, c1, c2;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.rows("magnitude_first_moment"), s.v = l.rows("magnitude_second_moment");
    s.c1 = l.scalar("magnitude_first_correction"), s.c2 = l.scalar("magnitude_second_correction");
  }
  template <class E, class St, class C>
  auto formula(E& e, St& s, view<const C> d, matrix_broadcast<C> lr) const {
    e.for_each(fn::bias_corrections{beta1, beta2}, s.c1, s.c2);
    return elementwise(fn::adam_step{beta1, beta2, eps, largest_squared<C>}, update_slot{}, s.m, s.v, d,
                       per_matrix(s.c1), per_matrix(s.c2), lr);
  }
};

struct fixed_magnitude {
  static std::string name() { return "fixed_magnitude"; }
  template <class E, class St, class C>
  auto formula(E&, St&, view<const C>, matrix_broadcast<C>) const {
    return elementwise(fn::nothing{}, update_slot{});
  }
};

struct sgd_magnitude {
  static std::string name() { return "sgd_magnitude"; }
  template <class E, class St, class C>
  auto formula(E&, St&, view<const C> d, matrix_broadcast<C> lr) const {
    return elementwise(fn::sgd_step{0x1p16}, update_slot{}, d, lr);
  }
};

template <bool Lion>
struct sign_magnitude {
  double beta1 = 0.9;                // weight of the mean in the step
  double beta2 = Lion ? 0.99 : 0.9;  // and in itself

  static std::string name() { return Lion ? "lion_magnitude" : "signum_magnitude"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("beta1", self.beta1, range{.low = 0, .high = 1, .high_open = true});
    visit("beta2", self.beta2, range{.low = 0, .high = 1, .high_open = true});
  }
  template <class S, class C>
  struct state {
    view<C> m;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.m = l.rows("magnitude_moment");
  }
  template <class E, class St, class C>
  auto formula(E&, St& s, view<const C> d, matrix_broadcast<C> lr) const {
    return elementwise(fn::sign_step{beta1, beta2}, update_slot{}, s.m, d, lr);
  }
};

using signum_magnitude = sign_magnitude<false>;
using lion_magnitude = sign_magnitude<true>;

}  // namespace MATOPT_NAMESPACE
