// NuMuon's feasible set: the update lies in a spectral ball and, scaled to it, in a nuclear ball of radius r(t) q, q =
// min(m, n).
//
//   minimise <M, D>  subject to  ||D||_2 <= 1,  ||D||_* <= tau                                      eq. 9 and 10
//   D = - sum t_i u_i v_i^T                                                                         Proposition 3.1
//   t_i = 1 for i <= floor(tau),  t_i = tau - floor(tau) for the next,  0 after                     Prop. 3.2, eq. 12
//   t_i = 1 for i <= k, 0 after, with k = ceil(r(t) q)                                              eq. 13, section 3.4
//
// The paper ignores the residual direction and takes the rank k = ceil(r(t) q) itself, tau = k; `residual = true` keeps
// it, with tau = r(t) q; else k is rounded up to `rank_multiple`, 1 in the paper: a larger one lets a recorded step
// (CUDA graphs) last longer. `Inner` is what happens to the weight: decay, Muown's row norms, ... Paper: NuMuon, arXiv
// 2603.03597. The k singular values of the update are 1; nothing is divided by k. The orthogonalizer must honour the
// budget; one that would ignore it does not compile.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>

#include "../../core/policy.hpp"
#include "../schedule/rank.hpp"
#include "decoupled_decay.hpp"

namespace MATOPT_NAMESPACE {

template <class RankSchedule = cosine_rank, class Inner = decoupled_decay>
struct nuclear_budget {
  using decorates = Inner;

  RankSchedule rank{};
  bool residual = false;
  index_t rank_multiple = 1;
  Inner inner{};

  static std::string name() { return "nuclear_budget<" + RankSchedule::name() + "," + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    RankSchedule::settings(self.rank, visit);
    visit("residual", self.residual);
    visit("rank_multiple", self.rank_multiple, range{.low = 1, .high = 65536});
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }
  void validate() const {
    if constexpr (requires { rank.validate(); }) rank.validate();
  }

  // The 1e-9 keeps a product that is whole up to rounding (0.625 * 64 = 40) from gaining a rank.
  double rank_budget(index_t step, index_t q) const {
    const double tau = rank.fraction(step) * static_cast<double>(q);  // NuMuon, section 3.4
    if (residual) return std::min(tau, static_cast<double>(q));       // NuMuon Prop. 3.2, eq. 12
    const double multiple = static_cast<double>(rank_multiple);
    return std::clamp(multiple * std::ceil((tau - 1e-9) / multiple), 1.0, static_cast<double>(q));  // section 3.4: k
  }

  template <class E, class St, class W, class U, class Rate>
  requires detail::retracts_from<Inner, E, St, W, U, Rate>
  auto retract(E& e, St& s, view<W> w, U u, Rate lr, double scale) const {
    return detail::retract(inner, e, s, w, u, lr, scale);
  }
};

}  // namespace MATOPT_NAMESPACE
