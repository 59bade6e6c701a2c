// optimizer_options: what an optimizer does beside its rule; and step_status, what it says of past steps.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "index.hpp"

namespace MATOPT_NAMESPACE {

// What a step does if a gradient holds NaN or infinity. `ignore` looks at no gradient.
enum class on_nonfinite { skip_step, ignore };

struct optimizer_options {
  on_nonfinite nonfinite = on_nonfinite::skip_step;
  index_t batch_limit = 0;  // most matrices that step at once; bounds the scratch, 0 = the whole bucket
  bool scales_gradient =
      false;  // steps take a gradient_scale; a scratch matrix per gradient, unless a formula takes it
  // Gradients are multiplied by max_norm / (norm of all gradients together + 1e-6), if that is below 1; 0 = not at all.
  // Infinity measures the norm and changes nothing.
  double max_norm = 0;
  // For debugging: begin_step() throws if the caller has written a weight without resync(), and the rule keeps a copy of
  // it, so that the step would undo the write. Each step waits then, and copies such weights to the host.
  bool check_copies = false;

  bool measures() const { return max_norm > 0; }
  // Whether rules see gradients that are multiplied by a number of the step.
  bool scales() const { return scales_gradient || measures(); }
};

struct step_status {
  index_t skipped = 0;                  // steps skipped since the last poll
  std::vector<std::string> parameters;  // whose gradients were not finite in them
  index_t unusable_scales = 0;          // those of them whose gradient_scale was 0, NaN or infinite
  explicit operator bool() const { return skipped == 0; }
};

// Steps that can be counted: random numbers and the steps' own numbers have 32 bits for it.
inline constexpr index_t max_steps = std::numeric_limits<std::uint32_t>::max() - 1;

}  // namespace MATOPT_NAMESPACE
