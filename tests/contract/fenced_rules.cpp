// A few rules of the contract on a backend whose memory the host cannot touch: what the checks, and the optimizer's own
// way to weights and state, must get along with on a GPU. One rule of each kind: elementwise and products, state that
// begins with the weights, random numbers and factorisations, reference gradients, phases.
#include <matopt/adamw.hpp>
#include <matopt/dion.hpp>
#include <matopt/mars_lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

#include "../support/fenced_backend.hpp"
#include "published.hpp"

namespace matopt::test {

using fenced = counting<fenced_backend>;
template <>
inline constexpr bool has_own_memory<fenced_backend> = true;

template <class B, class T>
const rule_registry<B, types<T>>& published_rules() {
  static const rule_registry<B, types<T>> rules = [] {
    rule_registry<B, types<T>> r;
    r.template add<adamw>("adamw").template add<muon>("muon").template add<muown>("muown");
    r.template add<numuon>("numuon", {.constraint = {.rank = {.total = 1}}});
    r.template add<dion>("dion").template add<mars_lion_exact>("mars_lion_exact");
    return r;
  }();
  return rules;
}

const std::vector<contract_rule>& contract_rules() {
  static const std::vector<contract_rule> all = [] {
    std::vector<contract_rule> rules;
    append_published_on<fenced>(rules);
    compare_with_cpu(rules);
    return rules;
  }();
  return all;
}

}  // namespace matopt::test
