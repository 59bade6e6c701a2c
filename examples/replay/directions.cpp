// Bare orthogonalizers.
#include <matopt/policy/orthogonalizer/balanced_polar.hpp>
#include <matopt/policy/orthogonalizer/contra_polar.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "backend.hpp"
#include "direction.hpp"
#include "iterations.hpp"
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
  for (const auto& [name, iteration] : iterations()) add(name.c_str(), iteration);
  table.compute("contra_direction", [](B& b, settings_reader& s, const json& c, outcome& out) {
    contra_polar<> o{.contra = s.number("contra", 0.4)};
    o.inner = iterations().at(s.word("orthogonalizer", "newton_schulz12", iteration_names()));
    s.finish();
    direction<B, T>(b, o, c, out);
  });
  table.compute("aurora_direction", [](B& b, settings_reader& s, const json& c, outcome& out) {
    balanced_polar<> o{.iterations = s.whole("iterations", 2, 1, 10), .exponent = s.number("beta", 0.5)};
    o.eps = s.number("eps", 1e-7);
    o.inner = iterations().at(s.word("orthogonalizer", "newton_schulz12", iteration_names()));
    s.finish();
    direction<B, T>(b, o, c, out);
  });
}

REPLAY_INSTANTIATE_RULES(add_directions);

}  // namespace replay
