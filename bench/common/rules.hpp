// The rules that are stepped: every published one, and some with other settings. Compiling them takes minutes, so each
// family is an object of its own (rule_family.cpp), for the device's backend and for the one that counts.
#pragma once
#include <matopt/policy/constraint/projected.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/constraint/weight_polar.hpp>
#include <matopt/published_rules.hpp>

#include "harness.hpp"

namespace bench {

using counter = counting_backend<matopt::detail::product_type<device::backend, float>::type>;
template <class B>
using registry = matopt::rule_registry<B, matopt::types<float>>;

// Muon by other products, with an exact polar factor, and with constraints that need one; rules of low rank at a
// quarter of it (NuMuon's own falls while it trains); SOAP with its renewals spread over steps.
template <class B, class T>
void add_variants(matopt::rule_registry<B, T>& r) {
  using namespace matopt;
  muon standard;
  standard.orthogonalizer.form = newton_schulz_form::standard;
  numuon falling;  // to a quarter at once: the schedule's total has no default
  falling.constraint.rank.total = 1;
  numuon_krylov krylov;
  krylov.constraint.rank.total = 1;
  r.replace("numuon", falling).replace("numuon_krylov", krylov);
  numuon quarter;
  quarter.constraint.rank = {.start = 0.25, .end = 0.25, .hold = 0, .total = 1};
  r.add("muon_standard_form", standard).add("numuon_rank_quarter", quarter);
  using exact = muon::with_orthogonalizer<svd_polar>;
  r.template add<exact>("muon_svd_polar").template add<muon::with_constraint<stiefel<>>>("muon_stiefel");
  using soft = muon::with_constraint<projected<soft_cap<>, decoupled_decay>>;
  using hard = muon::with_constraint<projected<hard_cap<>, decoupled_decay>>;
  r.template add<soft>("muon_soft_cap").template add<hard>("muon_hard_cap");
  krylov.constraint.rank = quarter.constraint.rank;
  r.add("numuon_krylov_rank_quarter", krylov);
  muon_8bit dynamic, e4m3;
  dynamic.momentum.map = code_map::dynamic, e4m3.momentum.map = code_map::e4m3;
  r.add("muon_8bit_dynamic", dynamic).add("muon_8bit_e4m3", e4m3);
  dion low;
  low.orthogonalizer.rank_fraction = 0.25;
  soap spread;
  spread.momentum.spread_renewals = true;
  r.add("dion_rank_quarter", low).add("soap_spread_renewals", spread);
  r.template add<muon::with_orthogonalizer<newton_schulz<bfloat16>>>("muon_bfloat16");
  if constexpr (device::backend::multiplies<tfloat32>)
    r.template add<muon::with_orthogonalizer<newton_schulz<tfloat32>>>("muon_tfloat32");
}

}  // namespace bench

// What the objects define: MATOPT_BENCH_FAMILY(extern, matopt::add_muon_rules) only says that one does.
#define MATOPT_BENCH_FAMILY(external, family)                              \
  external template void family(bench::registry<bench::device::backend>&); \
  external template void family(bench::registry<bench::counter>&);
