// The gradients of a step times the step's gradient scale, in the compute type and in scratch: for rules whose first
// operation is no formula, which would take a scaled_view.
//
//   with_scaled_gradient<two>(e, w, g, reference, [&](auto g, auto reference) { ... });
//
// calls back with s g and s reference, s = e.gradient_scale(), one scratch matrix each that lies as the weight does;
// with two = false there is no reference, and s g stands for it. The caller's memory is only read. FLOPs: 1 per
// element.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "pass.hpp"

namespace MATOPT_NAMESPACE {

template <bool Two, class E, class W, class G, class F>
void with_scaled_gradient(E& e, view<W> w, view<const G> g, view<const G> reference, F step) {
  const auto frame = e.frame();
  const auto scaled = e.take_like(w);
  e.for_each(fn::scaled{}, scaled, g, e.gradient_scale());
  if constexpr (Two) {
    const auto second = e.take_like(w);
    e.for_each(fn::scaled{}, second, reference, e.gradient_scale());
    step(as_const(scaled), as_const(second));
  } else {
    step(as_const(scaled), as_const(scaled));
  }
}

}  // namespace MATOPT_NAMESPACE
