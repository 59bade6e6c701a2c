// Relatives that do not orthogonalize by Newton-Schulz.
#include <matopt/adapnm.hpp>
#include <matopt/dion.hpp>
#include <matopt/lion.hpp>
#include <matopt/pnm.hpp>
#include <matopt/reg.hpp>
#include <matopt/soap.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

// "betas": [..] into the settings called `names`, one each.
template <class Rule>
void put_betas(settings_reader& s, Rule& r, const std::vector<const char*>& names) {
  if (!s.has("betas")) return;
  const auto betas = s.numbers("betas", {});
  if (betas.size() != names.size())
    throw bad_value("betas", std::to_string(betas.size()) + " numbers", std::to_string(names.size()));
  for (std::size_t i = 0; i < names.size(); ++i) set_setting(r, names[i], detail::text(betas[i]));
}

}  // namespace

template <class B, class T>
void add_baseline_rules(rule_table<B, T>& table) {
  table.add("lion", [](B& b, settings_reader& s, bool) {
    lion r;
    s.put(r, "weight_decay", "decay");
    put_betas(s, r, {"beta1", "beta2"});
    return finish<B, T>(b, s, r);
  });
  table.add("pnm", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      s.put(r, "weight_decay", "decay");
      put_betas(s, r, {"beta1", "beta0"});
      return finish<B, T>(b, s, r);
    };
    return s.flag("decoupled", true) ? make(pnm{}) : make(pnm_l2{});
  });
  table.add("adapnm", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "eps", "eps");
      s.put(r, "amsgrad", "amsgrad");
      put_betas(s, r, {"beta1", "beta2", "beta0"});
      return finish<B, T>(b, s, r);
    };
    return s.flag("decoupled", true) ? make(adapnm{}) : make(adapnm_l2{});
  });
  table.add("soap", [](B& b, settings_reader& s, bool) {
    soap r;
    s.put(r, "weight_decay", "decay");
    put_betas(s, r, {"beta1", "beta2"});
    r.momentum.shampoo_beta = std::max(-1.0, s.number("shampoo_beta", -1));
    for (const char* same : {"eps", "precondition_frequency", "max_precond_dim", "correct_bias", "normalize_grads"})
      s.put(r, same, same);
    return finish<B, T>(b, s, r);
  });
  table.add("reg", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "beta", "momentum");
      s.put(r, "rms", "update_rms");
      for (const char* same : {"p", "order", "sweeps", "racs_eps"}) s.put(r, same, same);
      return finish<B, T>(b, s, r);
    };
    return s.flag("nesterov", false) ? make(reg::with_momentum<nesterov_ema>{}) : make(reg{});
  });
  table.add("dion", [](B& b, settings_reader& s, bool) {
    dion r;
    s.put(r, "weight_decay", "decay");
    s.put(r, "mu", "mu");
    s.put(r, "epsilon", "dion_eps");
    s.put(r, "rank_fraction", "dion_rank_fraction");
    s.put(r, "rank_multiple_of", "dion_rank_multiple");
    s.put(r, "power_iters", "dion_power_iterations");
    r.orthogonalizer.transpose =
        s.word("transpose", "auto", {"auto", "never"}) == "auto" ? dion_transpose::automatic : dion_transpose::never;
    s.ignore("seed");  // of the oracle's generator; the case brings the matrix itself
    auto out = finish<B, T>(b, s, r);
    if (s.has("Q0")) out.state["dion_basis"] = s.raw("Q0");
    return out;
  });
}

REPLAY_INSTANTIATE_RULES(add_baseline_rules);

}  // namespace replay
