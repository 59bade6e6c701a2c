// Rules on a corrected gradient; with reference gradients in their two-gradient form.
#include <matopt/mars_adamw.hpp>
#include <matopt/mars_lion.hpp>
#include <matopt/mars_m.hpp>
#include <matopt/mars_shampoo.hpp>
#include <matopt/muon_mvr.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

// A scale that the case gives as a number.
struct any_factor {
  double value = 1;
  static std::string name() { return "any_factor"; }
  double factor(index_t, index_t) const { return value; }
};

// Calls make with `rule`, or with its exact orthogonalizer, as the case asks.
template <class Rule, class F>
auto with_ortho(settings_reader& s, Rule rule, F make) {
  const bool exact = s.word("ortho", "ns5", {"ns5", "svd"}) == "svd";
  if (!exact) s.put(rule, "ns_steps", "ns_steps");
  s.ignore("ns_steps");
  return exact ? make(typename Rule::template with_orthogonalizer<svd_polar>{}) : make(rule);
}

template <class Rule>
Rule mars_settings(settings_reader& s, Rule r) {
  s.put(r, "weight_decay", "decay");
  s.put(r, "gamma", "gamma");
  s.put(r, "clip", "clip");
  return r;
}

// The betas of MARS; only its AdamW form has a second.
template <class Rule>
Rule mars_betas(settings_reader& s, Rule r) {
  const auto betas = s.numbers("betas", {0.95, 0.99});
  if (betas.size() != 2) throw bad_value("betas", std::to_string(betas.size()) + " numbers", "2");
  if constexpr (requires { r.momentum.inner.beta1; }) {
    r.momentum.inner.beta1 = betas[0], r.momentum.inner.beta2 = betas[1];
    s.put(r, "amsgrad", "amsgrad");
    s.put(r, "eps", "eps");
  } else {
    r.momentum.inner.beta = betas[0];
    if constexpr (requires { r.orthogonalizer.eps; }) s.put(r, "eps", "ns_eps");
    s.ignore("amsgrad"), s.ignore("eps");
  }
  return r;
}

}  // namespace

template <class B, class T>
void add_estimator_rules(rule_table<B, T>& table) {
  const auto mars = [](auto last, auto given) {
    return [=](B& b, settings_reader& s, bool two) {
      const auto make = [&](auto r) { return finish<B, T>(b, s, mars_betas(s, mars_settings(s, r))); };
      return two ? make(given) : make(last);
    };
  };
  table.add("mars_adamw", mars(mars_adamw{}, mars_adamw_exact{}));
  table.add("mars_lion", mars(mars_lion{}, mars_lion_exact{}));
  table.add("mars_shampoo", mars(mars_shampoo{}, mars_shampoo_exact{}));

  const auto muon_like = [](auto last, auto given) {
    return [=](B& b, settings_reader& s, bool two) {
      const bool scaled = s.word("scale_mode", "rms", {"rms", "none"}) == "rms";
      const auto make = [&](auto r) {
        r = mars_settings(s, r);
        s.put(r, "momentum", "momentum");
        s.put(r, "rms", "rms");
        if (scaled) return finish<B, T>(b, s, r);
        using unscaled = typename decltype(r)::template with_scale<unit_scale>;
        return finish<B, T>(b, s, unscaled{r.momentum, r.orthogonalizer, r.normalizer, r.constraint, {}});
      };
      const auto pick = [&](auto r) { return with_ortho(s, r, make); };
      return two ? pick(given) : pick(last);
    };
  };
  table.add("mars_m", muon_like(mars_m{}, mars_m_exact{}));
  table.add("muon_mvr", muon_like(muon_mvr1{}, muon_mvr2{}));

  table.add("mars_m_efficient", [](B& b, settings_reader& s, bool) {
    return with_ortho(s, mars_m_efficient{}, [&](auto r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      s.put(r, "gamma", "gamma");
      s.put(r, "rms", "rms");
      s.ignore("clip");  // this form has none
      return finish<B, T>(b, s, r);
    });
  });
  table.add("muon_storm", [](B& b, settings_reader& s, bool) {
    return with_ortho(s, muon_storm::with_scale<any_factor>{}, [&](auto r) {
      s.put(r, "weight_decay", "decay");
      r.momentum.inner.beta = 1 - s.number("alpha", 0.05);
      r.scale.value = s.number("scale", 1);
      return finish<B, T>(b, s, r);
    });
  });
}

REPLAY_INSTANTIATE_RULES(add_estimator_rules);

}  // namespace replay
