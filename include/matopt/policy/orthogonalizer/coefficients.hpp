// Coefficient sets of the Newton-Schulz family: per step p(x) = a x + b x^3 + c x^5 + d x^7 + e x^9 on the singular
// values, of degree 3, 5, 7 or 9. Sets by name here; rows of one's own are coefficient_rows.
//
//   keller                3.4445, -4.7750, 2.0315 in every step; Keller Jordan's Muon, torch.optim.Muon. Singular
//                         values end in [0.68, 1.21] rather than at 1
//   you                   five rows; YouJiacheng; microsoft/dion, NVIDIA Emerging-Optimizers "quintic"
//   polar_express         greedy minimax rows for singular values in [1e-3, 1], each but the eighth evaluated at
//                         x / 1.01, and the input divided by 1.01 ||X||: Amsel et al., arXiv 2505.16932, Theorem 3.1
//                         and the algorithm "The General Polar Express". Meant for 5 to 8 steps
//   polar_express_1_02    the five rows of modded-nanogpt and microsoft/dion: safety factor 1.02 already in them
//   polar_express_angular the five rows of AngularMuown (arXiv 2606.23637): input divided by 1.01 ||X||
//   cubic                 1.5, -0.5, 0: Newton-Schulz proper; converges from anywhere in (0, sqrt 3), slowly
//   cubic5                five cubic rows; NVIDIA, arXiv 2606.00371. One product less per step
//   cans                  five minimax rows for [1e-3, 1]; CANS, arXiv 2506.10935, the numbers of NVIDIA
//                         Emerging-Optimizers. Damped here as polar_express is, which their code does not: without it
//                         a singular value that 16 bits round to 1.001 ends at infinity
//   deepseek              keller eight times, then 2, -1.5, 0.5, which brings singular values to 1; Emerging-Optimizers
//   degree9_4, degree9_3  greedy minimax rows of degree 9: four, which bring [1.25e-3, 1] to [0.988, 1.011], and three,
//                         [3.6e-3, 1] to [0.876, 1.123]. Square matrices: as many products as five quintics, and
//                         three quarters of that. Safety factor 1.05. Not for bfloat16: what it loses in the first
//                         step grows in the others
//   turbo                 the last four rows of `you`, after AOL (spectral_bound::aol): Turbo-Muon, arXiv 2512.04632
//   flash                 four rows, after AOL; thib-s/flash-newton-schulz
//   quintic4              greedy minimax rows for [1e-2, 1], safety factor 1.02: for flat spectra, whose singular
//                         values a Schatten norm (newton_schulz::bound) brings into that range
//   speedrun12            2, -1.5, 0.5 in each of twelve steps; the optimization track of modded-nanogpt ("NS12"). It
//                         brings singular values from 1e-3 on to 1, and none above 1.002
//
// usual_steps() is how many steps a set is meant for. After the last row of a set its last row repeats; those of the
// minimax sets then lift what was below their range and keep the rest in its band.
//
// A safety factor s: the input is divided by s ||X||, and each row but the last evaluated at x / s. The minimax rows
// are steep beyond 1, and without it rounding may leave their range for good.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "../../core/index.hpp"

namespace MATOPT_NAMESPACE {

enum class coefficient_set {
  keller,
  you,
  polar_express,
  polar_express_1_02,
  polar_express_angular,
  cubic,
  cubic5,
  cans,
  deepseek,
  degree9_4,
  degree9_3,
  quintic4,
  speedrun12,
  turbo,
  flash
};

constexpr auto enum_names(coefficient_set) {
  return std::array<std::string_view, 15>{"keller",
                                          "you",
                                          "polar_express",
                                          "polar_express_1_02",
                                          "polar_express_angular",
                                          "cubic",
                                          "cubic5",
                                          "cans",
                                          "deepseek",
                                          "degree9_4",
                                          "degree9_3",
                                          "quintic4",
                                          "speedrun12",
                                          "turbo",
                                          "flash"};
}

struct odd_polynomial {
  double a, b, c = 0, d = 0, e = 0;
  constexpr index_t degree() const { return e != 0 ? 9 : d != 0 ? 7 : c != 0 ? 5 : 3; }
};

namespace detail {
inline constexpr std::array keller_rows{odd_polynomial{3.4445, -4.7750, 2.0315}};  // a, b, c of Moonlight eq. 2
inline constexpr std::array you_rows{odd_polynomial{4.0848, -6.8946, 2.9270}, odd_polynomial{3.9505, -6.3029, 2.6377},
                                     odd_polynomial{3.7418, -5.5913, 2.3037}, odd_polynomial{2.8769, -3.1427, 1.2046},
                                     odd_polynomial{2.8366, -3.0525, 1.2012}};
// q(x) = p(x / safety)
constexpr odd_polynomial damped(odd_polynomial p, double safety) {
  const double s2 = safety * safety;
  return {p.a / safety, p.b / (safety * s2), p.c / (safety * s2 * s2), p.d / (safety * s2 * s2 * s2),
          p.e / (safety * s2 * s2 * s2 * s2)};
}
// Polar Express, Theorem 3.1 for degree 5, l = 1e-3 and u = 1; then p_t(x / 1.01), as its algorithm has it.
inline constexpr std::array polar_express_rows{
    damped({8.28721201814563, -23.595886519098837, 17.300387312530933}, 1.01),
    damped({4.107059111542203, -2.9478499167379106, 0.5448431082926601}, 1.01),
    damped({3.9486908534822946, -2.908902115962949, 0.5518191394370137}, 1.01),
    damped({3.3184196573706015, -2.488488024314874, 0.51004894012372}, 1.01),
    damped({2.300652019954817, -1.6689039845747493, 0.4188073119525673}, 1.01),
    damped({1.891301407787398, -1.2679958271945868, 0.37680408948524835}, 1.01),
    damped({1.8750014808534479, -1.2500016453999487, 0.3750001645474248}, 1.01),
    odd_polynomial{1.875, -1.25, 0.375}};
inline constexpr std::array polar_express_1_02_rows{
    odd_polynomial{8.156554524902461, -22.48329292557795, 15.878769915207462},
    odd_polynomial{4.042929935166739, -2.808917465908714, 0.5000178451051316},
    odd_polynomial{3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    odd_polynomial{3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    odd_polynomial{2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};
inline constexpr std::array polar_express_angular_rows{
    odd_polynomial{8.237312490495555, -23.157747414558198, 16.680568411445915},
    odd_polynomial{4.082441999064836, -2.8930477353325887, 0.5252849256975651},
    odd_polynomial{3.9263479922546556, -2.8547468034765293, 0.5318022422894989},
    odd_polynomial{3.2982187133085143, -2.4245419810267062, 0.48632008358844075},
    odd_polynomial{2.320007312889811, -1.6862169729967622, 0.42068027340235137}};
inline constexpr std::array cubic_rows{odd_polynomial{1.5, -0.5, 0}};
inline constexpr std::array cubic5_rows{
    odd_polynomial{3.3656576, -3.3420992, 0}, odd_polynomial{2.5744352, -1.4957376, 0},
    odd_polynomial{2.5368962, -1.4312570, 0}, odd_polynomial{2.4418906, -1.2764040, 0},
    odd_polynomial{2.2230472, -0.9630650, 0}};
inline constexpr std::array cans_rows{damped({8.4703, -25.1081, 18.6293}, 1.01),
                                      damped({4.1828, -3.1087, 0.5806}, 1.01), damped({3.9619, -2.9541, 0.5630}, 1.01),
                                      damped({3.2866, -2.4647, 0.5074}, 1.01), odd_polynomial{2.2737, -1.6447, 0.4162}};
inline constexpr std::array deepseek_rows{keller_rows[0], keller_rows[0], keller_rows[0],
                                          keller_rows[0], keller_rows[0], keller_rows[0],
                                          keller_rows[0], keller_rows[0], odd_polynomial{2, -1.5, 0.5}};
inline constexpr std::array degree9_4_rows{damped({14.837833, -141.63442, 467.768976, -599.067805, 260.080578}, 1.05),
                                           damped({7.132012, -17.27501, 14.477344, -4.704803, 0.5183}, 1.05),
                                           damped({5.272478, -12.047444, 10.559022, -3.678802, 0.438751}, 1.05),
                                           odd_polynomial{2.794761, -4.339482, 4.024185, -1.784772, 0.297929}};
inline constexpr std::array degree9_3_rows{damped({14.620918, -139.563852, 460.930613, -590.309971, 256.278433}, 1.05),
                                           damped({6.422911, -15.389886, 13.120468, -4.365091, 0.493498}, 1.05),
                                           odd_polynomial{3.645367, -7.079038, 6.517549, -2.551347, 0.352082}};
inline constexpr std::array quintic4_rows{
    damped({8.019541, -22.998686, 16.898973}, 1.02), damped({3.641433, -2.725431, 0.536945}, 1.02),
    damped({2.668359, -1.982937, 0.453258}, 1.02), odd_polynomial{1.958093, -1.33952, 0.384059}};
inline constexpr std::array speedrun12_rows{odd_polynomial{2, -1.5, 0.5}};
inline constexpr std::array turbo_rows{you_rows[1], you_rows[2], you_rows[3], you_rows[4]};
inline constexpr std::array flash_rows{odd_polynomial{4.6051, -9.6552, 5.6769}, odd_polynomial{4.7505, -6.0861, 2.1790},
                                       odd_polynomial{2.7763, -2.3190, 0.5523},
                                       odd_polynomial{2.4231, -2.2861, 0.8193}};
}  // namespace detail

constexpr std::span<const odd_polynomial> rows_of(coefficient_set set) {
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
    case coefficient_set::cans:
      return detail::cans_rows;
    case coefficient_set::deepseek:
      return detail::deepseek_rows;
    case coefficient_set::degree9_4:
      return detail::degree9_4_rows;
    case coefficient_set::degree9_3:
      return detail::degree9_3_rows;
    case coefficient_set::quintic4:
      return detail::quintic4_rows;
    case coefficient_set::speedrun12:
      return detail::speedrun12_rows;
    case coefficient_set::turbo:
      return detail::turbo_rows;
    case coefficient_set::flash:
      return detail::flash_rows;
    case coefficient_set::keller:
      break;
  }
  return detail::keller_rows;
}

// The row of step `i`, counted from 0.
constexpr odd_polynomial coefficients(coefficient_set set, index_t i) {
  const auto rows = rows_of(set);
  return rows[std::min(static_cast<std::size_t>(i), rows.size() - 1)];
}

// The number of steps that a set is meant for; five where its authors name several or none.
constexpr index_t usual_steps(coefficient_set set) {
  switch (set) {
    case coefficient_set::deepseek:
      return 10;
    case coefficient_set::speedrun12:
      return 12;
    case coefficient_set::turbo:
    case coefficient_set::flash:
    case coefficient_set::degree9_4:
    case coefficient_set::quintic4:
      return 4;
    case coefficient_set::degree9_3:
      return 3;
    default:
      return 5;
  }
}

// Whether five steps in bfloat16 do what they do in float, but for the rounding of the result. In others the rounding
// of products grows: singular values up to 1.9 were seen with polar_express.
constexpr bool bears_bfloat16(coefficient_set set) { return set == coefficient_set::keller; }

// By what the norm is multiplied before the input is divided by it.
constexpr double norm_margin(coefficient_set set) {
  switch (set) {
    case coefficient_set::polar_express:
    case coefficient_set::polar_express_angular:
    case coefficient_set::cans:
      return 1.01;
    case coefficient_set::polar_express_1_02:
    case coefficient_set::quintic4:
      return 1.02;
    case coefficient_set::degree9_4:
    case coefficient_set::degree9_3:
      return 1.05;
    default:
      return 1.0;
  }
}

}  // namespace MATOPT_NAMESPACE
