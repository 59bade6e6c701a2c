// Rules with a constraint on the update or the weight.
#include <matopt/angular_muown.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "any_scale.hpp"
#include "backend.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

// A case names its rank schedule at run time; a rule has it as a type.
struct any_rank {
  std::string kind = "fixed";
  fixed_rank fixed{};
  cosine_rank cosine{};
  piecewise_rank piecewise{};
  static std::string name() { return "any_rank"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    fixed_rank::settings(self.fixed, visit);
    cosine_rank::settings(self.cosine, visit);
    piecewise_rank::settings(self.piecewise, visit);
  }
  void validate() const { piecewise.validate(); }
  double fraction(index_t step) const {
    return kind == "fixed" ? fixed.fraction(step) : kind == "cosine" ? cosine.fraction(step) : piecewise.fraction(step);
  }
};

}  // namespace

template <class B, class T>
void add_constraint_rules(rule_table<B, T>& table) {
  table.add("numuon", [](B& b, settings_reader& s, bool) {
    const auto make = [&](auto r) {
      s.put(r, "weight_decay", "decay");
      s.put(r, "momentum", "momentum");
      s.put(r, "residual", "residual");
      r.scale = any_scale::of(s, "sqrt_out_over_in");
      auto& rank = r.constraint.rank;
      rank.kind = s.word("rank_schedule", "fixed", {"fixed", "cosine", "piecewise"});
      if (rank.kind == "fixed") s.put(r, "rank_fraction", "rank_fraction");
      if (rank.kind == "cosine") {
        for (const char* same : {"rank_start", "rank_end"}) s.put(r, same, same);
        s.put(r, "rank_hold_steps", "rank_hold"), s.put(r, "rank_end_step", "rank_total");
      }
      if (rank.kind == "piecewise")
        for (const char* same : {"rank_boundaries", "rank_fractions"}) s.put(r, same, same);
      return finish<B, T>(b, s, r);
    };
    // The cases are computed exactly or by Algorithm 3; numuon's own orthogonalizer only approximates them.
    using any = numuon_krylov::with_scale<any_scale>::with_constraint<nuclear_budget<any_rank>>;
    const bool nesterov = s.flag("nesterov", false);
    if (s.word("orthogonalizer", "svd", {"svd", "block_krylov"}) == "svd") {
      using exact = any::with_orthogonalizer<svd_polar>;
      return nesterov ? make(exact::with_momentum<nesterov_ema>{}) : make(exact{});
    }
    return nesterov ? make(any::with_momentum<nesterov_ema>{}) : make(any{});
  });

  const auto muown_like = []<class Rule>(Rule, auto settings) {
    return [=](B& b, settings_reader& s, bool) {
      const auto make = [&](auto r) {
        s.put(r, "momentum", "momentum");
        return finish<B, T>(b, s, settings(s, r));
      };
      const auto with_momentum = [&]<class R>(R r) {
        return s.flag("nesterov", true) ? make(r) : make(typename R::template with_momentum<heavy_ball>{});
      };
      const std::string ortho = s.word("orthogonalizer", "newton_schulz5", {"svd", "newton_schulz5", "polar_express"});
      if (ortho == "svd") return with_momentum(typename Rule::template with_orthogonalizer<svd_polar>{});
      return with_momentum(Rule{});
    };
  };
  // Newton-Schulz with the coefficients that the case names
  const auto coefficients = [](settings_reader& s, auto& r) {
    if constexpr (requires { r.orthogonalizer.coefficients; })
      r.orthogonalizer.coefficients =
          s.word("orthogonalizer", "newton_schulz5", {"newton_schulz5", "polar_express"}) == "polar_express"
              ? coefficient_set::polar_express_angular
              : coefficient_set::keller;
  };
  const auto betas = [](settings_reader& s, auto& r) {
    for (const char* same : {"beta1", "beta2", "eps"}) s.put(r, same, same);
  };
  table.add("muown", [=](B& b, settings_reader& s, bool two) {
    const auto with_decay = [=](settings_reader& in, auto r) {
      coefficients(in, r);
      in.put(r, "weight_decay", "decay");
      if constexpr (requires { r.constraint.magnitude.eps; })
        betas(in, r);
      else
        in.ignore("beta1"), in.ignore("beta2"), in.ignore("eps");  // the ablations fix their own
      return r;
    };
    const auto run = [&](auto rule) { return muown_like(rule, with_decay)(b, s, two); };
    const std::string magnitude = s.word("magnitude", "adam", {"adam", "fixed", "sgd", "signum", "lion"});
    if (magnitude == "fixed") return run(muown::with_constraint<weight_normalization<fixed_magnitude>>{});
    if (magnitude == "sgd") return run(muown::with_constraint<weight_normalization<sgd_magnitude>>{});
    if (magnitude == "signum") return run(muown::with_constraint<weight_normalization<signum_magnitude>>{});
    if (magnitude == "lion") return run(muown::with_constraint<weight_normalization<lion_magnitude>>{});
    return run(muown{});
  });
  table.add("angular_muown", muown_like(angular_muown::with_scale<any_scale>{}, [=](settings_reader& s, auto r) {
              coefficients(s, r);
              betas(s, r);
              r.scale = any_scale::of(s, "sqrt_max1");
              for (const char* same : {"angle_warmup", "angle_decay_scale", "angle_decay_degree"}) s.put(r, same, same);
              return r;
            }));
}

REPLAY_INSTANTIATE_RULES(add_constraint_rules);

}  // namespace replay
