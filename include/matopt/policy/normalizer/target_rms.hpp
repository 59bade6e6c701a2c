// Gives the update a fixed root mean square: u <- u rms sqrt(m n) / ||u||_F. Zero stays zero.
//
// The last step of REG, with Moonlight's constant 0.2 (both inferred, see row_column_scaling); the "update norm" that
// Moonlight (arXiv 2502.16982, eq. 6) tried and replaced by the cheaper match_rms. State: none. FLOPs: 4 per parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "neuron_norm.hpp"

namespace MATOPT_NAMESPACE {

struct target_rms {
  double rms = 0.2;

  static std::string name() { return "target_rms"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("update_rms", self.rms, range{.low = 0, .low_open = true});
  }
  template <class E, class St, class U>
  auto normalize(E& e, St&, view<U> u) const {
    const auto norm = detail::frobenius(e, u);
    const auto factor = e.take(1, 1);
    // Moonlight eq. 6: 0.2 / RMS(O)
    const double size = rms * std::sqrt(static_cast<double>(u.rows) * static_cast<double>(u.cols));
    e.for_each(fn::factor_to_norm{size, 0}, factor, as_const(norm.scale), as_const(norm.squares));
    return elementwise(fn::times_factor{}, update_slot{}, per_matrix(factor));
  }
};

}  // namespace MATOPT_NAMESPACE
