// The trainer with a rule of one's own: every command of small_gpt, in which `--rule mine` is known too.
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#include "command_line.hpp"

// Muon's momentum and scale around the sign of each entry: the orthogonalizer's slot is left empty, and the direction
// is taken by a formula in the slot of the normalizer. Any rule is made like this (docs/writing-a-policy.md).
struct entry_sign {
  struct formula {
    template <class T>
    MATOPT_HD void operator()(T& u) const {
      u = matopt::math::sign(u);
    }
  };
  static std::string name() { return "entry_sign"; }
  template <class E, class St, class U>
  auto normalize(E&, St&, matopt::view<U>) const {
    return matopt::elementwise(formula{}, matopt::update_slot{});
  }
};
using sign_muon = matopt::muon::with_normalizer<entry_sign>;

int main(int argc, char** argv) { return small_gpt::run(argc, argv, small_gpt::rules().add<sign_muon>("sign_muon")); }
