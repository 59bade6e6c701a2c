// Rules that scale by estimates of the gradient's noise or size.
#include <matopt/adamw.hpp>
#include <matopt/muon_nsr.hpp>
#include <matopt/muon_vs.hpp>
#include <matopt/nadamw.hpp>
#include <matopt/namo.hpp>
#include <matopt/namo_d.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

template <class B, class T>
void add_adaptive_rules(rule_table<B, T>& table) {
  const auto variance = [](auto nanogpt, auto suite_a, auto suite_b) {
    return [=](B& b, settings_reader& s, bool) {
      const std::string variant = s.word("variant", "nanogpt", {"nanogpt", "suite_a", "suite_b"});
      const auto make = [&](auto r) {
        s.put(r, "weight_decay", "decay");
        s.put(r, "momentum", "momentum");
        if constexpr (std::is_same_v<decltype(r.momentum), noise_to_signal>) s.put(r, "alpha", "alpha");
        s.put(r, "eps", "variance_eps");
        if (variant == "suite_b") s.put(r, "g_norm", "amplify_below");
        s.ignore("g_norm"), s.ignore("alpha");
        return finish<B, T>(b, s, r);
      };
      if (variant == "suite_a") return make(suite_a);
      if (variant == "suite_b") return make(suite_b);
      return make(nanogpt);
    };
  };
  table.add("muon_nsr", variance(muon_nsr{}, muon_nsr_suite_a{}, muon_nsr_suite_b{}));
  table.add("muon_vs", variance(muon_vs{}, muon_vs_suite_a{}, muon_vs_suite_b{}));

  const auto rate = [](auto official, auto plain, auto paper) {
    return [=](B& b, settings_reader& s, bool) {
      const auto make = [&](auto r) {
        s.put(r, "weight_decay", "decay");
        s.put(r, "momentum", "momentum");
        s.put(r, "mu2", "mu2");
        s.put(r, "eps", "rate_eps");
        if constexpr (rates_by_column<decltype(r.momentum)>) s.put(r, "clamp_c", "clamp");
        if constexpr (requires { r.scale.rms; }) s.put(r, "scale_coeff", "rms");
        s.ignore("scale_coeff");
        return finish<B, T>(b, s, r);
      };
      const bool nesterov = s.flag("nesterov", true);
      if (s.word("variant", "official", {"official", "paper"}) == "paper") return make(paper);
      return nesterov ? make(official) : make(plain);
    };
  };
  table.add("namo", rate(namo{}, namo::with_momentum<norm_rate<ema>>{}, namo_paper{}));
  table.add("namo_d", rate(namo_d{}, namo_d::with_momentum<column_rate<ema>>{}, namo_d_paper{}));

  table.add("adamw", [](B& b, settings_reader& s, bool) {
    adamw r;
    s.put(r, "weight_decay", "decay");
    s.put(r, "beta1", "beta1");
    s.put(r, "beta2", "beta2");
    s.put(r, "eps", "eps");
    s.put(r, "nesterov", "nesterov");
    if (s.word("eps_mode", "torch", {"torch", "uncorrected"}) == "uncorrected")
      r.momentum.eps_mode = adam_eps::uncorrected;
    return finish<B, T>(b, s, r);
  });
}

REPLAY_INSTANTIATE_RULES(add_adaptive_rules);

}  // namespace replay
