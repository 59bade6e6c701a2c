// NuMuon's feasible set: the update lies in a spectral ball and, scaled to it, in a nuclear ball of radius r(t) q, q =
// min(m, n).
//
//   minimise <M, D>  subject to  ||D||_2 <= 1,  ||D||_* <= tau        D = - sum t_i u_i v_i^T
//   t_i = 1 for i <= floor(tau),  t_i = tau - floor(tau) for the next,  0 after                     (Proposition 3.2)
//
// The paper ignores the residual direction and takes the rank k = ceil(r(t) q) itself, tau = k; `residual = true` keeps
// it, with tau = r(t) q; else k is rounded up to `rank_multiple`, 1 in the paper: a larger one lets a recorded step
// (CUDA graphs) last longer. `Inner` is what happens to the weight: decay, Muown's row norms, ... Paper: NuMuon, arXiv
// 2603.03597. The k singular values of the update are 1; nothing is divided by k. The orthogonalizer must honour the
// budget; one that would ignore it does not compile.
#pragma once
#include <algorithm>
#include <cmath>

#include "../../core/policy.hpp"
#include "../schedule/rank.hpp"
#include "decoupled_decay.hpp"

namespace matopt {

template <class RankSchedule = cosine_rank, class Inner = decoupled_decay>
struct nuclear_budget {
  static constexpr bool changes_gradient = matopt::changes_gradient<Inner>;
  using leaves_gradient = std::conditional_t<matopt::leaves_gradient<Inner>, nuclear_budget, void>;
  static constexpr bool takes_column_rates = matopt::takes_column_rates<Inner>;
  static constexpr bool keeps_master = matopt::keeps_master<Inner>;

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
    if constexpr (requires { inner.validate(); }) inner.validate();
  }

  // The 1e-9 keeps a product that is whole up to rounding (0.625 * 64 = 40) from gaining a rank.
  double rank_budget(index_t step, index_t q) const {
    const double tau = rank.fraction(step) * static_cast<double>(q);
    if (residual) return std::min(tau, static_cast<double>(q));
    const double multiple = static_cast<double>(rank_multiple);
    return std::clamp(multiple * std::ceil((tau - 1e-9) / multiple), 1.0, static_cast<double>(q));
  }

  template <class S, class C>
  using state = state_for<Inner, S, C>;
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    lay_out(inner, l, s);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    if constexpr (requires { inner.init(e, s, w); }) inner.init(e, s, w);
  }
  template <class E, class St, class W, class G, class U>
  auto lift(E& e, St& s, view<W> w, view<G> g, view<U> u) const {
    return inner.lift(e, s, w, g, u);
  }
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St& s, view<W> w, view<U> u, Rate lr, double scale) const {
    detail::retract(inner, e, s, w, u, lr, scale);
  }
};

}  // namespace matopt
