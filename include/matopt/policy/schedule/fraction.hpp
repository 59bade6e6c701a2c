// step_at: the step at a fraction of a training, for schedules that are given by fractions.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE::detail {

// The nearest step. Throws bad_value for a training without steps, and for a fraction that is not in [0, most].
inline index_t step_at(index_t total, double fraction, double most = 1) {
  if (total < 1) throw bad_value("total steps of a schedule", text(total), ">= 1");
  if (const range legal{.low = 0, .high = most}; !legal.contains(fraction))
    throw bad_value("fraction of a schedule", text(fraction), text(legal));
  return static_cast<index_t>(std::llround(fraction * static_cast<double>(total)));
}

}  // namespace MATOPT_NAMESPACE::detail
