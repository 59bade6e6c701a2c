// Bare orthogonalizers.
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "backend.hpp"
#include "direction.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

template <class B, class T>
void add_directions(rule_table<B, T>& table) {
  const auto add = [&](const char* name, auto orthogonalizer) {
    table.compute(name, [=](B& b, settings_reader& s, const json& c, outcome& out) {
      s.finish();
      direction<B, T>(b, orthogonalizer, c, out);
    });
  };
  add("polar_exact", svd_polar{});
  table.compute("top_k_exact", [](B& b, settings_reader& s, const json& c, outcome& out) {
    const matrix<T> x = matrix_of<T>("X", member(c, "X"));
    const index_t shorter = std::min(x.rows, x.cols), k = s.whole("k", shorter, 1, shorter);
    s.finish();
    direction<B, T>(b, svd_polar{}, c, out, static_cast<double>(k));
  });
  add("newton_schulz5", newton_schulz<>{.eps = 1e-7});
  add("polar_express5", newton_schulz<>{.coefficients = coefficient_set::polar_express_angular, .eps = 1e-7});
}

REPLAY_INSTANTIATE_RULES(add_directions);

}  // namespace replay
