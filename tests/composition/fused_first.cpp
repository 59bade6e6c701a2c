#include "fused.hpp"

namespace matopt::test {
void run_first_momenta(fused_account& account) { run_momenta<0>(account, std::make_index_sequence<half_of_momenta>{}); }
}  // namespace matopt::test
