// Coefficient sets of the Newton-Schulz family: per step (a, b, c) of p(x) = a x + b x^3 + c x^5 on the singular
// values.
//
//   keller                3.4445, -4.7750, 2.0315 in every step; Keller Jordan's Muon, torch.optim.Muon. Singular
//                         values end in [0.68, 1.21] rather than at 1
//   you                   five rows; YouJiacheng; microsoft/dion, NVIDIA Emerging-Optimizers "quintic"
//   polar_express         greedy minimax rows for singular values in [1e-3, 1], each but the eighth evaluated at
//                         x / 1.01, and the input divided by 1.01 ||X||: Amsel et al., arXiv 2505.16932. Meant for 5 to
//                         8 steps
//   polar_express_1_02    the five rows of modded-nanogpt and microsoft/dion: safety factor 1.02 already in them
//   polar_express_angular the five rows of AngularMuown (arXiv 2606.23637): input divided by 1.01 ||X||
//   cubic                 1.5, -0.5, 0: Newton-Schulz proper; converges from anywhere in (0, sqrt 3), slowly
//   cubic5                five cubic rows; NVIDIA, arXiv 2606.00371. One product less per step
//
// After the last row of a set its last row repeats.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "../../core/index.hpp"

namespace matopt {

enum class coefficient_set { keller, you, polar_express, polar_express_1_02, polar_express_angular, cubic, cubic5 };

constexpr auto enum_names(coefficient_set) {
  return std::array<std::string_view, 7>{
      "keller", "you", "polar_express", "polar_express_1_02", "polar_express_angular", "cubic", "cubic5"};
}

struct quintic {
  double a, b, c;
};

namespace detail {
inline constexpr std::array keller_rows{quintic{3.4445, -4.7750, 2.0315}};
inline constexpr std::array you_rows{quintic{4.0848, -6.8946, 2.9270}, quintic{3.9505, -6.3029, 2.6377},
                                     quintic{3.7418, -5.5913, 2.3037}, quintic{2.8769, -3.1427, 1.2046},
                                     quintic{2.8366, -3.0525, 1.2012}};
// q(x) = p(x / safety)
constexpr quintic damped(quintic p, double safety) {
  const double s2 = safety * safety;
  return {p.a / safety, p.b / (safety * s2), p.c / (safety * s2 * s2)};
}
inline constexpr std::array polar_express_rows{
    damped({8.28721201814563, -23.595886519098837, 17.300387312530933}, 1.01),
    damped({4.107059111542203, -2.9478499167379106, 0.5448431082926601}, 1.01),
    damped({3.9486908534822946, -2.908902115962949, 0.5518191394370137}, 1.01),
    damped({3.3184196573706015, -2.488488024314874, 0.51004894012372}, 1.01),
    damped({2.300652019954817, -1.6689039845747493, 0.4188073119525673}, 1.01),
    damped({1.891301407787398, -1.2679958271945868, 0.37680408948524835}, 1.01),
    damped({1.8750014808534479, -1.2500016453999487, 0.3750001645474248}, 1.01),
    quintic{1.875, -1.25, 0.375}};
inline constexpr std::array polar_express_1_02_rows{
    quintic{8.156554524902461, -22.48329292557795, 15.878769915207462},
    quintic{4.042929935166739, -2.808917465908714, 0.5000178451051316},
    quintic{3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    quintic{3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    quintic{2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};
inline constexpr std::array polar_express_angular_rows{
    quintic{8.237312490495555, -23.157747414558198, 16.680568411445915},
    quintic{4.082441999064836, -2.8930477353325887, 0.5252849256975651},
    quintic{3.9263479922546556, -2.8547468034765293, 0.5318022422894989},
    quintic{3.2982187133085143, -2.4245419810267062, 0.48632008358844075},
    quintic{2.320007312889811, -1.6862169729967622, 0.42068027340235137}};
inline constexpr std::array cubic_rows{quintic{1.5, -0.5, 0}};
inline constexpr std::array cubic5_rows{quintic{3.3656576, -3.3420992, 0}, quintic{2.5744352, -1.4957376, 0},
                                        quintic{2.5368962, -1.4312570, 0}, quintic{2.4418906, -1.2764040, 0},
                                        quintic{2.2230472, -0.9630650, 0}};
}  // namespace detail

constexpr std::span<const quintic> rows_of(coefficient_set set) {
  switch (set) {
    case coefficient_set::you:
      return detail::you_rows;
    case coefficient_set::polar_express:
      return detail::polar_express_rows;
    case coefficient_set::polar_express_1_02:
      return detail::polar_express_1_02_rows;
    case coefficient_set::polar_express_angular:
      return detail::polar_express_angular_rows;
    case coefficient_set::cubic:
      return detail::cubic_rows;
    case coefficient_set::cubic5:
      return detail::cubic5_rows;
    case coefficient_set::keller:
      break;
  }
  return detail::keller_rows;
}

// The row of step `i`, counted from 0.
constexpr quintic coefficients(coefficient_set set, index_t i) {
  const auto rows = rows_of(set);
  return rows[std::min(static_cast<std::size_t>(i), rows.size() - 1)];
}

// By what the Frobenius norm is multiplied before the input is divided by it.
constexpr double norm_margin(coefficient_set set) {
  switch (set) {
    case coefficient_set::polar_express:
    case coefficient_set::polar_express_angular:
      return 1.01;
    case coefficient_set::polar_express_1_02:
      return 1.02;
    default:
      return 1.0;
  }
}

}  // namespace matopt
