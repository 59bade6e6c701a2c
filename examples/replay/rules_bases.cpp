// Rules that work in the eigenbases of Shampoo's factors.
#include <matopt/policy/constraint/decay_after.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
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
}

REPLAY_INSTANTIATE_RULES(add_basis_rules);

}  // namespace replay
