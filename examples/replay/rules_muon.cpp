// Muon as several projects have it.
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/optax_muon.hpp>
#include <matopt/torch_muon.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

template <class Rule>
Rule common(settings_reader& s, Rule r, const char* momentum = "momentum") {
  s.put(r, "weight_decay", "decay");
  s.put(r, momentum, "momentum");
  s.put(r, "ns_steps", "ns_steps");
  return r;
}

}  // namespace

template <class B, class T>
void add_muon_rules(rule_table<B, T>& table) {
  table.add("muon_kj", [](B& b, settings_reader& s, bool) {
    s.ignore("conv_scale");  // of convolutions
    return s.flag("nesterov", true) ? finish<B, T>(b, s, common(s, muon{}))
                                    : finish<B, T>(b, s, common(s, muon::with_momentum<ema>{}));
  });
  table.add("muon_torch", [](B& b, settings_reader& s, bool) {
    const bool nesterov = s.flag("nesterov", true);
    const auto make = [&]<class R>(R r) {
      r = common(s, r);
      s.put(r, "eps", "ns_eps");
      return finish<B, T>(b, s, r);
    };
    const std::string adjust = s.word("adjust_lr_fn", "original", {"original", "match_rms_adamw"});
    if (adjust == "original") return nesterov ? make(torch_muon{}) : make(torch_muon::with_momentum<ema>{});
    return nesterov ? make(torch_muon_match_rms{}) : make(torch_muon_match_rms::with_momentum<ema>{});
  });
  table.add("muon_optax", [](B& b, settings_reader& s, bool) {
    s.word("preconditioning", "frobenius", {"frobenius"});
    const bool nesterov = s.flag("nesterov", true), adaptive = s.flag("adaptive", false);
    const double rms = s.number("consistent_rms", 0);
    const auto make = [&]<class R>(R r) {
      r = common(s, r, "beta");
      s.put(r, "eps", "ns_eps");
      if constexpr (requires { r.scale.rms; }) r.scale.rms = rms;
      auto out = finish<B, T>(b, s, r);
      out.transposed = true;  // optax's own layout
      return out;
    };
    const auto with_scale = [&]<class R>(R r) {
      return rms > 0 ? make(typename R::template with_scale<match_rms>{}) : make(r);
    };
    const auto with_momentum = [&]<class R>(R r) {
      return nesterov ? with_scale(r) : with_scale(typename R::template with_momentum<corrected_ema>{});
    };
    return adaptive ? with_momentum(optax_muon_adaptive{}) : with_momentum(optax_muon{});
  });
  table.add("moonlight", [](B& b, settings_reader& s, bool) {
    const auto make = [&]<class R>(R r) {
      r = common(s, r);
      s.put(r, "rms", "rms");
      return finish<B, T>(b, s, r);
    };
    return s.flag("nesterov", true) ? make(moonlight{}) : make(moonlight::with_momentum<heavy_ball>{});
  });
}

REPLAY_INSTANTIATE_RULES(add_muon_rules);

}  // namespace replay
