// Newer rules by products alone: other inputs of the orthogonalizer, parts of a matrix, spheres, and what looks ahead.
#include <matopt/aurora.hpp>
#include <matopt/muon2.hpp>
#include <matopt/muon_8bit.hpp>
#include <matopt/muon_h.hpp>
#include <matopt/nordion2.hpp>
#include <matopt/normuon_h.hpp>
#include <matopt/policy/constraint/look_ahead.hpp>
#include <matopt/policy/constraint/tail_average.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/turbo_muon.hpp>
#include <matopt/with_projection.hpp>

#include "any_scale.hpp"
#include "backend.hpp"
#include "iterations.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

newton_schulz<> iteration(settings_reader& s, const char* otherwise) {
  return iterations().at(s.word("orthogonalizer", otherwise, iteration_names()));
}
template <class Rule>
void momentum_and_decay(settings_reader& s, Rule& r) {
  s.put(r, "momentum", "momentum");
  s.put(r, "weight_decay", "decay");
}
// make(rule) with the rule's own momentum, which is Nesterov's, or the plain one.
template <class Plain, class Rule, class Make>
auto nesterov_or(settings_reader& s, Rule r, const Make& make) {
  return s.flag("nesterov", true) ? make(r) : make(typename Rule::template with_momentum<Plain>{});
}
template <class Rule>
Rule turbo_settings(settings_reader& s, Rule r) {
  momentum_and_decay(s, r);
  r.orthogonalizer = iteration(s, "aol_quintic4");
  r.scale = any_scale::of(s, "sqrt_max1");
  return r;
}
using any_turbo = turbo_muon::with_scale<any_scale>;

template <class B, class T>
void add_sliced_rules(rule_table<B, T>& table) {
  const auto slices = []<class Rule>(B& b, settings_reader& s, Rule rule, const char* decay) {
    const auto make = [&](auto r) {
      s.put(r, "fraction", "slice_fraction");
      s.put(r, decay, "slice_decay");
      s.put(r, "weight_decay", "decay");
      if constexpr (requires { r.normalizer.beta2; }) s.put(r, "beta2", "neuron_beta2");
      r.scale = any_scale::of(s, "sqrt_out_over_in");
      return finish<B, T>(b, s, r);
    };
    std::vector<std::string> known = iteration_names();
    known.emplace_back("svd");
    const std::string by = s.word("orthogonalizer", "polar_express_dion", known);
    if (by != "svd") {
      rule.orthogonalizer.inner = iterations().at(by);
      return make(rule);
    }
    typename Rule::template with_orthogonalizer<sliced_polar<svd_polar>> exact{};
    exact.orthogonalizer.axis = rule.orthogonalizer.axis;
    return make(exact);
  };
  table.add("dion2",
            [=](B& b, settings_reader& s, bool) { return slices(b, s, dion2::with_scale<any_scale>{}, "ef_decay"); });
  table.add("nordion2", [=](B& b, settings_reader& s, bool) {
    return slices(b, s, nordion2::with_scale<any_scale>{}, "momentum");
  });
}

template <class B, class T>
void add_averages(rule_table<B, T>& table) {
  table.add("ema_nesterov", [](B& b, settings_reader& s, bool) {
    s.word("inner", "turbo_muon", {"turbo_muon"});
    settings_reader inside("turbo_muon", s.raw("inner_settings"));
    const auto make = [&](auto r) {
      r = turbo_settings(inside, r);
      s.put(r, "lookahead", "look_ahead");
      s.put(r, "decay", "look_ahead_decay");
      s.put(r, "prefill", "look_ahead_from");
      s.put(r, "rest", "look_ahead_until");
      auto out = finish<B, T>(b, inside, r);
      r.constraint.projection.lr = out.lr / s.number("lr_ratio", 1);
      inside.finish();
      prepared<B, T> p = finish<B, T>(b, inside, r);
      p.weight = "look_ahead_weight";
      return p;
    };
    return nesterov_or<ema>(inside, with_projection<look_ahead, any_turbo>{}, make);
  });
  // The weights of a run that somebody else has made, one after the other.
  table.compute("tail_average", [](B& b, settings_reader& s, const json& c, outcome& out) {
    rule<no_momentum, no_orthogonalizer, no_normalizer, projected<tail_average>, unit_scale> r;
    s.put(r, "tau", "tail_tau");
    s.put(r, "lambda", "tail_weight");
    s.put(r, "start", "tail_start");
    s.finish();
    const json& weights = member(c, "X");
    if (!weights.is_array() || weights.empty()) throw bad_value("X", weights.type_name(), "a list of weights");
    const matrix<T> first = matrix_of<T>("X", weights[0]);
    placed_matrix<B, T> w(b, first), g(b, {first.rows, first.cols, std::vector<T>(first.data.size())});
    any_optimizer<B, T> opt(b, r);
    opt.add("w", w.view(), g.view());
    opt.finalize();
    json readouts = json::array();
    for (std::size_t t = 0; t < weights.size(); ++t) {
      w.put(matrix_of<T>("X", weights[t], first.rows, first.cols));
      opt.step(0);
      matrix<T> now = state_of<B, T>(opt, "tail_readout", first.rows, first.cols);
      readouts.push_back(json_of(now.view()));
      if (c.contains("Y"))
        out.error =
            std::max(out.error.value_or(0),
                     distance(now.view(), matrix_of<double>("Y", member(c, "Y").at(t), first.rows, first.cols)));
    }
    out.computed["Y"] = readouts;
  });
}

}  // namespace

template <class B, class T>
void add_product_rules(rule_table<B, T>& table) {
  table.add("muon2", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      momentum_and_decay(s, r);
      s.put(r, "beta2", "moment_beta2");
      s.put(r, "eps", "moment_eps");
      s.put(r, "eps_place", "moment_eps_place");
      r.orthogonalizer = iteration(s, "newton_schulz12");
      r.scale = any_scale::of(s, "sqrt_max1");
      return finish<B, T>(b, s, r);
    };
    return nesterov_or<moment_scaled>(s, muon2::with_scale<any_scale>{}, make);
  });
  table.add("turbo_muon", [](B& b, settings_reader& s, bool) {
    return nesterov_or<ema>(s, any_turbo{}, [&](auto r) { return finish<B, T>(b, s, turbo_settings(s, r)); });
  });
  table.add("muon_8bit", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      momentum_and_decay(s, r);
      s.put(r, "map", "momentum_map");
      s.put(r, "block", "momentum_block");
      r.orthogonalizer = iteration(s, "newton_schulz5");
      r.scale = any_scale::of(s, "sqrt_max1");
      return finish<B, T>(b, s, r);
    };
    return nesterov_or<quantized<ema>>(s, muon_8bit::with_scale<any_scale>{}, make);
  });
  const auto on_sphere = []<class Rule>(Rule rule) {
    return [=](B& b, settings_reader& s, bool) {
      const auto make = [&](auto r) {
        s.put(r, "momentum", "momentum");
        r.orthogonalizer = iteration(s, "newton_schulz12");
        any_scale::of(s, "sqrt_max1");  // which the norm undoes
        if constexpr (requires { r.normalizer.beta2; })
          s.put(r, "beta2", "neuron_beta2"), s.put(r, "eps", "neuron_eps");
        return finish<B, T>(b, s, r);
      };
      return nesterov_or<ema>(s, rule, make);
    };
  };
  table.add("muon_h", on_sphere(muon_h{}));
  table.add("normuon_h", on_sphere(normuon_h{}));
  table.add("aurora", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      momentum_and_decay(s, r);
      s.put(r, "iterations", "balance_iterations");
      s.put(r, "beta", "balance_exponent");
      s.put(r, "eps", "balance_eps");
      r.orthogonalizer.inner = iteration(s, "newton_schulz12");
      r.scale = any_scale::of(s, "sqrt_max1");
      return finish<B, T>(b, s, r);
    };
    return nesterov_or<ema>(s, aurora::with_scale<any_scale>{}, make);
  });
  add_sliced_rules(table);
  add_averages(table);
}

REPLAY_INSTANTIATE_RULES(add_product_rules);

}  // namespace replay
