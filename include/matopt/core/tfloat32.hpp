// tfloat32: a float whose products a backend may round to 11 significant bits before it multiplies (TF32 on NVIDIA
// GPUs); sums are formed in float. It names a precision of products; stored, it is a float.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "index.hpp"

namespace MATOPT_NAMESPACE {

struct tfloat32 {
  float value = 0;

  tfloat32() = default;
  MATOPT_HD constexpr explicit tfloat32(float x) : value(x) {}
  MATOPT_HD constexpr operator float() const { return value; }
};

}  // namespace MATOPT_NAMESPACE
