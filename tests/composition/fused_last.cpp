#include "fused.hpp"

namespace matopt::test {
void run_last_momenta(fused_account& account) {
  run_momenta<half_of_momenta>(account, std::make_index_sequence<std::tuple_size_v<typed_momenta> - half_of_momenta>{});
}
}  // namespace matopt::test
