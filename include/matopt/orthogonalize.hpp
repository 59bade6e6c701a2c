// orthogonalize and top_k: the kernels of these optimizers by themselves, in one call.
//
//   orthogonalize(backend, newton_schulz<>{}, x);        every matrix of x becomes about U V^T, where x = U S V^T
//   top_k(backend, subspace_polar{}, x, 32);             ... or the sum of its 32 leading u_i v_i^T
//
// x is a view, or what view_of makes one of, of any strides. Each call plans and allocates its memory; who
// orthogonalizes often keeps an orthogonalizer_plan, which says what k, results and errors are.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <utility>

#include "orthogonalizer_plan.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Policy, viewable X>
void orthogonalize(Backend& backend, const Policy& policy, X&& x) {
  const auto v = view_of(std::forward<X>(x));
  orthogonalizer_plan plan(backend, policy, v);
  plan(v);
}

template <class Backend, class Policy, viewable X>
requires honours_rank<Policy>
void top_k(Backend& backend, const Policy& policy, X&& x, double k) {
  const auto v = view_of(std::forward<X>(x));
  orthogonalizer_plan plan(backend, policy, v, k);
  plan(v);
}

}  // namespace MATOPT_NAMESPACE
