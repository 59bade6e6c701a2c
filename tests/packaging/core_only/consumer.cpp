// Every rule without any other library: types, names and settings.
#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/param_groups.hpp>

#ifdef EIGEN_WORLD_VERSION
#error "a header of the core includes Eigen"
#endif

static_assert(std::is_same_v<matopt::muon::with_scale<matopt::fan_ratio>, matopt::muon>);

template <class Rule>
bool usable(std::size_t settings) {
  Rule rule{};
  if constexpr (requires { rule.constraint.rank.total; }) rule.constraint.rank.total = 1;  // has no default
  rule.validate();
  return !Rule::name().empty() && matopt::settings_of(rule).size() >= settings;
}

int main() {
  const bool all = usable<matopt::muon>(5) && usable<matopt::numuon>(6) && usable<matopt::muown>(5) &&
                   usable<matopt::angular_muown>(5) && usable<matopt::adamw>(4);
  return all ? 0 : 1;
}
