// Exponential and summed momentum, plain and Nesterov.
//
//   ema                  M <- beta M + (1 - beta) G       u = M                           NuMuon eq. 1; Scion eq. 3
//   nesterov_ema         M <- beta M + (1 - beta) G       u = (1 - beta) G + beta M
//   heavy_ball           M <- beta M + G                  u = M                           Moonlight eq. 1
//   nesterov_heavy_ball  M <- beta M + G                  u = G + beta M                  Moonlight, footnote 1
//
// NuMuon: arXiv 2603.03597; Scion: arXiv 2502.07529, whose alpha is 1 - beta; Moonlight: arXiv 2502.16982.
// Where public implementations differ: Keller Jordan's Muon, torch.optim.Muon and NorMuon keep the exponential mean;
// Moonlight, Muon+ and Muown keep the sum. Both give the same direction, but the buffers differ by 1 - beta, so
// checkpoints do not mix, and a fixed epsilon in the orthogonalizer weighs 1 / (1 - beta) more against the mean. No
// form corrects a bias. State: 1 scalar per parameter. FLOPs: 4 per parameter. Needs: elementwise verbs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// m <- beta m + take g;  u = nesterov ? take g + beta m : m
struct momentum {
  double beta, take;
  bool nesterov;
  template <class T>
  MATOPT_HD void operator()(T& m, T& u, T g) const {
    m = T(beta) * m + T(take) * g;  // NuMuon eq. 1; Scion Alg. 1, 2, line 3; Moonlight eq. 1; MARS Alg. 1, line 6
    const T ahead = math::one_if<T>(nesterov);
    u = ahead * T(take) * g + (ahead * T(beta) + (T(1) - ahead)) * m;  // Moonlight, footnote 1; Muown App. C
  }
};
}  // namespace fn

template <bool Mean, bool Nesterov>
struct basic_momentum {
  double beta = 0.95;

  static std::string name() { return std::string(Nesterov ? "nesterov_" : "") + (Mean ? "ema" : "heavy_ball"); }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("momentum", self.beta, range{.low = 0, .high = 1, .high_open = true, .average = 1});
  }

  template <class S, class C>
  struct state {
    view<S> buffer;
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.buffer = l.matrix("momentum");
  }

  template <class E, class St, class G, class U>
  auto accumulate(E&, St& s, G g, U u) const {
    return elementwise(fn::momentum{beta, Mean ? 1 - beta : 1, Nesterov}, s.buffer, u, g);
  }
};

using ema = basic_momentum<true, false>;
using nesterov_ema = basic_momentum<true, true>;
using heavy_ball = basic_momentum<false, false>;
using nesterov_heavy_ball = basic_momentum<false, true>;

}  // namespace MATOPT_NAMESPACE
