// rounding_of_projections: what rounding leaves of a column that depends on the columns before it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "math.hpp"

namespace MATOPT_NAMESPACE::detail {

// What is left of a column that depends on `before` orthonormal ones, relative to its length, when rounding is all
// that is left of it.
template <class T>
MATOPT_HD T rounding_of_projections(index_t before) {
  return T(4) * std::numeric_limits<T>::epsilon() * math::sqrt(static_cast<T>(before + 1));
}

}  // namespace MATOPT_NAMESPACE::detail
