// Scales: the factor of an update that depends on the shape only. The decay is never multiplied by it.
//
//   unit_scale           1
//   fan_ratio            sqrt(max(1, fan_out / fan_in))     Keller Jordan's Muon, torch.optim.Muon "original"
//   spectral_ratio       sqrt(fan_out / fan_in)             RMS-to-RMS operator norm: NuMuon eq. 35, torchtitan, Scion
//                                                           Table 2
//   fan_out_root         sqrt(fan_out)                      Scion's spectral norm that is not normalised, Table 4
//   inverse_fan_in       1 / fan_in                         Scion's Sign and ColNorm, normalised; for Sign Table 3
//   convolution_ratio    sqrt(fan_out / channels) / kernel  Scion's SpectralConv; fan_in = channels * kernel
//   match_rms            rms sqrt(max(fan_out, fan_in))     Moonlight eq. 4, Muown App. C; 0.2 is AdamW's RMS
//
// NuMuon: arXiv 2603.03597; Scion: arXiv 2502.07529; Moonlight: arXiv 2502.16982; Muown: arXiv 2605.10797.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>

#include "../../core/policy.hpp"

namespace MATOPT_NAMESPACE {

struct unit_scale {
  static std::string name() { return "unit_scale"; }
  double factor(index_t, index_t) const { return 1; }
};

struct fan_ratio {
  static std::string name() { return "fan_ratio"; }
  double factor(index_t fan_out, index_t fan_in) const {
    return std::sqrt(std::fmax(1.0, static_cast<double>(fan_out) / static_cast<double>(fan_in)));
  }
};

struct spectral_ratio {
  static std::string name() { return "spectral_ratio"; }
  double factor(index_t fan_out, index_t fan_in) const {
    return std::sqrt(static_cast<double>(fan_out) / static_cast<double>(fan_in));  // NuMuon eq. 35; Scion Table 2
  }
};

struct fan_out_root {
  static std::string name() { return "fan_out_root"; }
  double factor(index_t fan_out, index_t) const { return std::sqrt(static_cast<double>(fan_out)); }
};

struct inverse_fan_in {
  static std::string name() { return "inverse_fan_in"; }
  double factor(index_t, index_t fan_in) const { return 1 / static_cast<double>(fan_in); }
};

// For a convolution stored as fan_out x (channels * kernel); `kernel` is the number of pixels, 9 for 3 x 3.
struct convolution_ratio {
  index_t kernel = 9;

  static std::string name() { return "convolution_ratio"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("kernel", self.kernel, range{.low = 1});
  }
  double factor(index_t fan_out, index_t fan_in) const {
    const double pixels = static_cast<double>(kernel), channels = static_cast<double>(fan_in) / pixels;
    return std::sqrt(static_cast<double>(fan_out) / channels) / pixels;
  }
};

struct match_rms {
  double rms = 0.2;

  static std::string name() { return "match_rms"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("rms", self.rms, range{.low = 0, .low_open = true});
  }
  double factor(index_t fan_out, index_t fan_in) const {
    return rms * std::sqrt(static_cast<double>(fan_out > fan_in ? fan_out : fan_in));  // Moonlight eq. 4
  }
};

}  // namespace MATOPT_NAMESPACE
