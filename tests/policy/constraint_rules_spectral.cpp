#include <matopt/muon.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/constraint/spectral_threshold.hpp>
#include <matopt/policy/prefixed.hpp>

#include "constraint_contract.hpp"

namespace matopt::test {

void append_spectral_constraints(std::vector<constraint_rule>& rules) {
  using soft = muon::with_constraint<projected<soft_cap<>>>;
  rules.push_back(describe_constraint("soft_cap", soft{}, at_rest::moves));

  using hard = muon::with_constraint<projected<hard_cap<>>>;
  rules.push_back(describe_constraint("hard_cap", hard{}, at_rest::moves));

  using top = muon::with_constraint<
      projected<spectral_normalize<exact_norm>,
                projected<spectral_decay<>, projected<prefixed<"hammer", spectral_hammer<exact_norm>>>>>>;
  rules.push_back(describe_constraint("spectral_normalize, decay, hammer", top{}, at_rest::moves));

  using thresholds = muon::with_constraint<
      projected<exact_hard_cap, projected<prefixed<"clipped", spectral_clipped_decay>, projected<nuclear_prox>>>>;
  rules.push_back(describe_constraint("thresholds", thresholds{}, at_rest::moves));
}

}  // namespace matopt::test
