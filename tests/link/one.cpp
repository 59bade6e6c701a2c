// Two translation units that include everything must link: nothing may be defined twice. The other one is compiled
// without Highway and without assertions, as files of a user's program may be, and still sees the same classes.
#undef NDEBUG
#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>

#include "sizes.hpp"

const void* address_in_other_unit();
const void* address() { return static_cast<const void*>(&matopt::detail::keller_rows); }

bool multiplies_in_other_unit(matopt::eigen_backend& cpu);
bool same_sizes_in_other_unit(const std::size_t* sizes, std::size_t count);

int main() {
  matopt::eigen_backend cpu(2);
  return address() == address_in_other_unit() && multiplies_in_other_unit(cpu) &&
                 same_sizes_in_other_unit(public_sizes.data(), public_sizes.size())
             ? 0
             : 1;
}
