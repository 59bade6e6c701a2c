// A case names its scale at run time; a rule has it as a type. This one holds any.
#pragma once
#include <matopt/policy/scale/scale.hpp>
#include <string>

#include "settings_reader.hpp"

namespace replay {

struct any_scale {
  std::string kind = "sqrt_out_over_in";
  double rms = 0.2;

  static any_scale of(settings_reader& s, const char* otherwise) {
    return {s.word("scale", otherwise, {"none", "sqrt_out_over_in", "sqrt_max1", "match_rms"})};
  }
  static std::string name() { return "any_scale"; }
  double factor(index_t fan_out, index_t fan_in) const {
    if (kind == "none") return 1;
    if (kind == "sqrt_max1") return matopt::fan_ratio{}.factor(fan_out, fan_in);
    if (kind == "match_rms") return matopt::match_rms{rms}.factor(fan_out, fan_in);
    return matopt::spectral_ratio{}.factor(fan_out, fan_in);
  }
};

}  // namespace replay
