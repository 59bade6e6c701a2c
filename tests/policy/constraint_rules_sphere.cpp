#include <matopt/muon.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>

#include "constraint_contract.hpp"

namespace matopt::test {

void append_sphere_constraints(std::vector<constraint_rule>& rules) {
  using sso = rule<nesterov_ema, no_orthogonalizer, no_normalizer, projected<spectral_sphere<>>, spectral_ratio>;
  rules.push_back(describe_constraint("spectral_sphere", sso{}, at_rest::moves));

  using spel = muon::with_constraint<stiefel<>>;
  rules.push_back(describe_constraint("stiefel", spel{}, at_rest::moves));

  using polar = muon::with_constraint<projected<nuclear_polar_decay<>>>;
  rules.push_back(describe_constraint("nuclear_polar_decay", polar{}, at_rest::moves));
}

}  // namespace matopt::test
