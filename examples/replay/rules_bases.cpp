// Rules that work in the eigenbases of Shampoo's factors.
#include <matopt/kl_shampoo.hpp>
#include <matopt/kl_soap.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/qk_clip.hpp>
#include <matopt/soap_muon.hpp>

#include "backend.hpp"
#include "direction.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

newton_schulz<> speedrun_with_schatten_norm() {
  newton_schulz<> o;
  soap_muon_defaults::set(o);
  return o;
}

// The momentum of SOAP-Muon's cases.
template <class Rule>
void put_whitening(settings_reader& s, Rule& r) {
  s.put(r, "soap_beta", "whitening_beta");
  s.put(r, "denom_power", "whitening_power");
  s.put(r, "soap_eps", "whitening_eps");
  s.put(r, "norm", "whitening_norm");
}

// A function of the matrices of a case that a rule's momentum computes on the way: one step from W = 0 at the rate 1,
// with the state that the case names. What the case has as a result is compared with the state, or, under "", with
// the step.
template <class B, class T, class Rule>
void one_step(B& backend, Rule rule, const json& c, const char* gradient, std::map<std::string, json> state,
              const std::map<std::string, std::string>& results, outcome& out) {
  const matrix<T> g0 = matrix_of<T>("the gradient", member(c, gradient));
  matrix<T> zero = g0;
  for (T& x : zero.data) x = 0;
  placed_matrix<B, T> w(backend, zero), g(backend, g0);
  any_optimizer<B, T> opt(backend, std::move(rule));
  opt.add("w", w.view(), g.view());
  opt.finalize();
  for (const auto& t : opt.state_tensors())
    if (const auto at = state.find(t.name.substr(2)); at != state.end())
      opt.write_state(t, matrix_of<T>(at->first, at->second, t.rows, t.cols).data.data());
  opt.set_steps(1);
  opt.step(1);
  const auto take = [&](const std::string& result, matrix<T> m) {
    out.computed[result] = json_of(m.view());
    if (c.contains(result))
      out.error =
          std::max(out.error.value_or(0), distance(m.view(), matrix_of<double>(result, c.at(result), m.rows, m.cols)));
  };
  for (const auto& [name, result] : results) {
    if (name.empty()) {
      const view<T> moved = w.get();
      matrix<T> u = zero;
      for (index_t i = 0; i < u.rows; ++i)
        for (index_t j = 0; j < u.cols; ++j) u.view()(i, j) = -moved(i, j);
      take(result, u);
    }
    for (const auto& t : opt.state_tensors())
      if (t.name == "w." + name) {
        matrix<T> m{t.rows, t.cols, std::vector<T>(static_cast<std::size_t>(t.rows * t.cols))};
        opt.read_state(t, m.data.data());
        take(result, m);
      }
  }
}

}  // namespace

template <class B, class T>
void add_basis_rules(rule_table<B, T>& table) {
  table.compute("newton_schulz12_schatten4", [](B& b, settings_reader& s, const json& c, outcome& out) {
    s.finish();
    direction<B, T>(b, speedrun_with_schatten_norm(), c, out);
  });
  table.compute("soap_muon_precondition", [](B& b, settings_reader& s, const json& c, outcome& out) {
    using whitened = rule<eigen_whitened<no_momentum>, no_orthogonalizer, no_normalizer, decay_after, unit_scale>;
    whitened r;
    put_whitening(s, r);
    s.finish();
    r.momentum.frequency = 1000;
    one_step<B, T>(b, r, c, "X",
                   {{"left_basis", member(c, "Q_row")},
                    {"right_basis", member(c, "Q_col")},
                    {"whitening_moment", member(c, "V0")}},
                   {{"", "Y"}, {"whitening_moment", "V"}}, out);
  });

  table.add("soap_muon", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      for (const char* same : {"momentum", "precondition_frequency", "basis_start", "trust_floor", "trust_cap",
                               "trust_floor_end", "trust_fade_end"})
        s.put(r, same, same);
      put_whitening(s, r);
      s.put(r, "radial_outward", "brake_outward"), s.put(r, "radial_inward", "brake_inward");
      s.put(r, "target_uw", "floor_ratio"), s.put(r, "cautious_decay", "cautious_after_decay");
      s.put(r, "trust_min_agree", "trust_agreement");
      if (s.number("trust_min_grad", 0) != 0 || s.number("trust_power", 1) != 1)
        throw bad_value("trust_min_grad, trust_power", "other numbers", "0 and 1");
      r.momentum.trust_gate = s.word("trust", "none", {"none", "gated"}) == "gated";
      const std::string floor = s.word("floor", "row", {"row", "scalar", "none"});
      set_setting(r, "floor_axis", floor == "row" ? "rows" : "matrix");
      if (floor == "none") set_setting(r, "floor_ratio", "0");
      if (s.word("scale", "sqrt_max1", {"sqrt_max1"}) != "sqrt_max1" || !s.flag("nesterov", true))
        throw bad_value("nesterov", "false", "true");
      return finish<B, T>(b, s, r);
    };
    const auto pinned_or_not = [&](auto r) {
      using rule = decltype(r);
      using loose = projected<radial_brake, projected<update_floor, projected<cautious_decay_after>>>;
      if (!s.flag("radius_pin", true)) {
        typename rule::template with_constraint<loose> free;
        free.constraint.inner.projection = r.constraint.inner.projection;
        return make(free);
      }
      r.constraint.inner.inner.inner.projection.least = 1e-8;
      return make(r);
    };
    const std::string orthogonalizer =
        s.word("orthogonalizer", "newton_schulz12_schatten4", {"newton_schulz12_schatten4", "svd"});
    return orthogonalizer == "svd" ? pinned_or_not(soap_muon::with_orthogonalizer<svd_polar>{})
                                   : pinned_or_not(soap_muon{});
  });

  // NVIDIA's form as it is published: it takes the first step, and its eps is absolute.
  const auto published = []<class Rule>(Rule r) {
    r.momentum.skip_first = r.momentum.relative_eps = false, r.momentum.max_update_rms = 0;
    return r;
  };
  table.add("kl_soap", [=](B& b, settings_reader& s, bool) {
    auto r = published(emerging_kl_soap{});
    s.put(r, "weight_decay", "decay");
    s.put(r, "basis", "basis_method");
    for (const char* same : {"beta1", "beta2", "shampoo_beta", "eps"}) s.put(r, same, same);
    return finish<B, T>(b, s, r);
  });
  table.compute("kl_factor_update", [=](B& b, settings_reader& s, const json& c, outcome& out) {
    auto r = published(emerging_kl_soap{});
    s.put(r, "beta", "shampoo_beta");
    s.put(r, "eps", "eps");
    s.finish();
    const auto as_rows = [&](const char* name, bool column) {
      const json& list = member(c, name);
      json rows = json::array();
      for (const json& x : list)
        if (column) rows.push_back(json::array({x}));
      return column ? rows : json::array({list});
    };
    one_step<B, T>(b, r, c, "G",
                   {{"left", member(c, "L0")},
                    {"right", member(c, "R0")},
                    {"left_basis", member(c, "Q_L")},
                    {"right_basis", member(c, "Q_R")},
                    {"left_eigenvalues", as_rows("lambda_L", true)},
                    {"right_eigenvalues", as_rows("lambda_R", false)},
                    {"factor_correction", json::array({json::array({1})})}},
                   {{"left", "L"}, {"right", "R"}}, out);
  });

  const auto authors = []<class Rule>(Rule) {
    return [=](B& b, settings_reader& s, bool) {
      const auto make = [&](auto r) {
        s.put(r, "weight_decay", "decay");
        for (const char* same : {"beta1", "shampoo_beta", "eps", "precondition_frequency"}) s.put(r, same, same);
        if constexpr (std::is_same_v<decltype(r.momentum), kl_soap_direction>)
          s.put(r, "beta2", "beta2"), r.momentum.limit_quotient = false;
        else
          s.ignore("beta2");
        s.put(r, "init_factor", "initial_eigenvalue"), s.put(r, "clamp", "root_limit");
        s.put(r, "clamp_by_size", "limit_by_size");
        r.momentum.full_first_factor = s.word("first_factor", "ema", {"ema", "full"}) == "full";
        return finish<B, T>(b, s, r);
      };
      return s.flag("hyperball", false) ? make(typename Rule::template with_constraint<projected<hyperball>>{})
                                        : make(typename Rule::template with_constraint<decay_after>{});
    };
  };
  table.add("kl_soap_authors", authors(kl_soap{}));
  table.add("kl_soap_h", authors(kl_soap_h{}));
  table.add("kl_shampoo", authors(kl_shampoo{}));

  table.compute("qk_clip", [](B& b, settings_reader& s, const json& c, outcome& out) {
    constexpr index_t most = 1 << 20;
    const attention_heads of{.heads = s.whole("heads", 1, 1, most),
                             .groups = s.whole("kv_groups", 0, 0, most),
                             .head_dim = s.whole("head_dim", 1, 1, most),
                             .rotary = s.whole("rope_dim", 0, 0, most),
                             .threshold = s.number("tau", 100),
                             .alpha = s.number("alpha", 0.5)};
    s.finish();
    placed_matrix<B, T> q(b, matrix_of<T>("Wq0", member(c, "Wq0"))), k(b, matrix_of<T>("Wk0", member(c, "Wk0")));
    placed_matrix<B, T> maxima(b, matrix_of<T>("S_max", json::array({member(c, "S_max")})));
    qk_clip<B, T> clip(b, of, as_const(maxima.view()));
    clip.add(q.view(), k.view());
    clip();
    const auto take = [&](const char* name, const view<T>& m) {
      out.computed[name] = json_of(m);
      if (c.contains(name))
        out.error = std::max(out.error.value_or(0), distance(m, matrix_of<double>(name, c.at(name), m.rows, m.cols)));
    };
    take("Wq", q.get()), take("Wk", k.get());
    if (clip.skipped() > 0) throw bad_value("S_max", "a number that is not finite", "finite");
  });
}

REPLAY_INSTANTIATE_RULES(add_basis_rules);

}  // namespace replay
