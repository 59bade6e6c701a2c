// Exponential and summed momentum, plain and Nesterov.
//
//   ema                  M <- beta M + (1 - beta) G       u = M
//   nesterov_ema         M <- beta M + (1 - beta) G       u = (1 - beta) G + beta M
//   heavy_ball           M <- beta M + G                  u = M
//   nesterov_heavy_ball  M <- beta M + G                  u = G + beta M
//
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
    m = T(beta) * m + T(take) * g;
    const T ahead = math::one_if<T>(nesterov);
    u = ahead * T(take) * g + (ahead * T(beta) + (T(1) - ahead)) * m;
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
