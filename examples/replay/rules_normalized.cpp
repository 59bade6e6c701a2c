// Rules that rescale the update after it is orthogonalized.
#include <matopt/adamuon.hpp>
#include <matopt/muon_plus.hpp>
#include <matopt/normuon.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

template <class B, class T>
void add_normalized_rules(rule_table<B, T>& table) {
  table.add("normuon", [](B& b, settings_reader& s, bool) {
    const std::string variant = s.word("variant", "official", {"official", "paper", "dion", "speedrun"});
    const auto make = [&]<class R>(R r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      s.put(r, "beta2", "neuron_beta2");
      if (variant != "dion") s.put(r, "eps", "neuron_eps");
      if (variant == "dion") r.orthogonalizer = {};  // golden cases are about its normalizer and have NS5 for all forms
      s.ignore("eps");                               // fixed in the dion form
      return finish<B, T>(b, s, r);
    };
    const bool nesterov = s.flag("nesterov", variant != "dion");
    if (variant == "paper") return make(normuon_paper{});
    if (variant == "dion")
      return nesterov ? make(normuon_dion::with_momentum<nesterov_heavy_ball>{}) : make(normuon_dion{});
    if (variant == "speedrun")
      return nesterov ? make(normuon_speedrun{}) : make(normuon_speedrun::with_momentum<ema>{});
    return nesterov ? make(normuon{}) : make(normuon::with_momentum<ema>{});
  });
  table.add("adamuon", [](B& b, settings_reader& s, bool) {
    const std::string variant = s.word("variant", "gpt2", {"gpt2", "paper", "megatron"});
    const auto make = [&]<class R>(R r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      s.put(r, "momentum", "element_beta");  // one beta for both
      s.put(r, "eps", "element_eps");
      if (variant != "paper") s.put(r, "eps", "element_norm_eps");
      s.put(r, "rms", "update_rms");
      return finish<B, T>(b, s, r);
    };
    const bool nesterov = s.flag("nesterov", true);
    if (variant == "paper") return make(adamuon_paper{});
    if (variant == "megatron")
      return nesterov ? make(adamuon_megatron{}) : make(adamuon::with_momentum<sign_of<heavy_ball>>{});
    return nesterov ? make(adamuon{}) : make(adamuon::with_momentum<sign_of<ema>>{});
  });
  table.add("muon_plus", [](B& b, settings_reader& s, bool) {
    if (s.flag("nuclear_scaling", false)) throw bad_value("nuclear_scaling of rule \"muon_plus\"", "true", "false");
    for (const char* split : {"split_rows", "split_cols"})
      if (s.number(split, 1) != 1)
        throw bad_value(std::string(split) + " of rule \"muon_plus\"", std::to_string(s.number(split, 1)),
                        "1; the parts of a matrix are matrices of their own");
    const auto make = [&]<class R>(R r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      s.put(r, "norm_mode", "norm_order");
      s.put(r, "norm_eps", "line_eps");
      return finish<B, T>(b, s, r);
    };
    const bool scaled = s.flag("rms_scaling", true), nesterov = s.flag("nesterov", true);
    using plain = muon_plus::with_momentum<heavy_ball>;
    if (scaled) return nesterov ? make(muon_plus{}) : make(plain{});
    return nesterov ? make(muon_plus::with_scale<unit_scale>{}) : make(plain::with_scale<unit_scale>{});
  });
}

REPLAY_INSTANTIATE_RULES(add_normalized_rules);

}  // namespace replay
