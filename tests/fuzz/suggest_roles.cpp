// suggest_role on names: one per line, in front of a shape that the line's length gives.
#include <matopt/suggest_roles.hpp>
#include <sstream>

#include "target.hpp"

FUZZ(suggest_roles) {
  std::istringstream lines{std::string(data)};
  std::vector<matopt::named_shape> all;
  for (std::string name; std::getline(lines, name);) {
    const auto n = static_cast<matopt::index_t>(name.size());
    all.push_back({name, {n * n, 8 + n % 7}});
  }
  const auto roles = matopt::suggest_roles(all);
  matopt::require_confirmed(all, roles);  // takes what it has proposed itself
  fuzz::refuse_or([&] { matopt::require_confirmed(all, std::vector(all.size(), matopt::role::hidden)); });
}
