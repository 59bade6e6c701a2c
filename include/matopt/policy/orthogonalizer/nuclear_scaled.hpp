// Multiplies a direction by its inner product with what it was made from: O = Inner(U), u <- <U, O> O. For the polar
// factor <U, O> is the nuclear norm of U, so the step is the steepest descent of the spectral norm, size included.
//
// PolarGrad (arXiv 2505.21799); optax.contrib.muon's `adaptive`. The step then depends on the size of the gradient, and
// the right learning rate on the problem. State: the inner policy's. Scratch: one copy of U. FLOPs: 4 per parameter
// more.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "newton_schulz.hpp"
#include "svd_polar.hpp"

namespace MATOPT_NAMESPACE {

template <class Inner = newton_schulz<>>
struct nuclear_scaled {
  using decorates = Inner;
  static constexpr bool takes_norm = false, gives_parts = false;

  Inner inner{};

  static std::string name() { return "nuclear_scaled<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }

  template <class E, class St, class C>
  requires detail::can_orthogonalize<Inner, E, St>
  auto orthogonalize(E& e, St& s, view<C> u) const {
    const view<C> size = e.take(1, 1);
    {
      const auto frame = e.frame();
      const view<C> before = e.take_like(u);
      e.for_each(fn::assign{}, before, as_const(u));
      detail::orthogonalize(inner, e, s, u);
      e.reduce(fn::product{}, size, as_const(before), as_const(u));
    }
    return elementwise(fn::multiply{}, update_slot{}, per_matrix(size));
  }
};

}  // namespace MATOPT_NAMESPACE
