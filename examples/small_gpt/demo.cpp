// small_gpt for scripts/demo: every command, and the four rules that the demo trains with. All rules take longer to compile
// than everything else together.
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

#include "command_line.hpp"

namespace small_gpt {

rule_book known_rules() {
  rule_book b;
  b.add<matopt::adamw>("adamw").add<matopt::muon>("muon").add<matopt::numuon>("numuon").add<matopt::muown>("muown");
  return b;
}

}  // namespace small_gpt

int main(int argc, char** argv) { return small_gpt::run(argc, argv); }
