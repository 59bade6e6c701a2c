// gradient_pair: the gradient of a step with a second one, for momentum policies that estimate from two (MARS exact,
// STORM). It is the view of the gradient, so a policy that wants one gradient takes it as a view.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "view.hpp"

namespace MATOPT_NAMESPACE {

template <class T>
struct gradient_pair : view<T> {
  view<T> reference;  // the same shape
};

}  // namespace MATOPT_NAMESPACE
