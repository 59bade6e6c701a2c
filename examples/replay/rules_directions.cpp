// Steps of other norms, and of the spectral norm with its size.
#include <matopt/polargrad.hpp>
#include <matopt/scion.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

template <class B, class T>
void add_direction_rules(rule_table<B, T>& table) {
  table.add("scion", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      r.momentum.beta = 1 - s.number("momentum", 0.1);  // theirs is the weight of the gradient
      s.put(r, "scale", "radius");
      r.constraint.constrained = !s.flag("unconstrained", false);
      if constexpr (requires { r.orthogonalizer.steps; }) s.put(r, "ns_steps", "ns_steps");
      s.ignore("ns_steps"), s.ignore("ortho");
      return finish<B, T>(b, s, r);
    };
    const std::string norm = s.word("norm", "spectral", {"spectral", "sign", "colnorm", "rownorm", "biasrms"});
    if (norm == "sign") return make(scion_sign{});
    if (norm == "colnorm") return make(scion_column::with_scale<unit_scale>{});
    if (norm == "rownorm") return make(scion_row{});
    if (norm == "biasrms") return make(scion_vector{});
    return s.word("ortho", "ns5", {"ns5", "svd"}) == "svd" ? make(scion::with_orthogonalizer<svd_polar>{})
                                                           : make(scion{});
  });
  table.add("polargrad", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      return finish<B, T>(b, s, r);
    };
    const std::string ortho = s.word("ortho", "svd", {"svd", "qdwh", "ns5"});
    const bool first = s.flag("polar_first", false);
    if (ortho == "svd") {
      s.ignore("inner_steps");
      return first ? make(polargrad_polar_first{}) : make(polargrad{});
    }
    if (ortho == "ns5") {
      newton_schulz<> ns;
      ns.eps = 1e-7;
      ns.steps = static_cast<index_t>(s.number("inner_steps", 5));
      if (first)
        return make(polargrad_polar_first::with_momentum<polar_first<newton_schulz<>>>{{.orthogonalizer = ns}});
      return make(polargrad::with_orthogonalizer<nuclear_scaled<newton_schulz<>>>{.orthogonalizer = {ns}});
    }
    qdwh_polar qdwh{.steps = static_cast<index_t>(s.number("inner_steps", 2))};
    qdwh.lower = s.number("l0", qdwh.lower);
    if (first) return make(polargrad_polar_first::with_momentum<polar_first<qdwh_polar>>{{.orthogonalizer = qdwh}});
    return make(polargrad_qdwh{.orthogonalizer = {qdwh}});
  });
}

REPLAY_INSTANTIATE_RULES(add_direction_rules);

}  // namespace replay
