// Cases on a backend, trajectories among them; nothing here looks into the backend's memory.
#include "case.hpp"

#include <algorithm>
#include <limits>
#include <memory>

#include "backend.hpp"
#include "matrices.hpp"
#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

template <class B, class T>
void put_state(any_optimizer<B, T>& opt, const std::map<std::string, json>& state) {
  for (const auto& [name, value] : state)
    for (const auto& t : opt.state_tensors())
      if (t.name == "w." + name) opt.write_state(t, matrix_of<T>(name, value, t.rows, t.cols).data.data());
}

// Steps the weight through the gradients.
template <class B, class T>
void trajectory(B& backend, const json& c, outcome& out) {
  const std::string rule = member(c, "rule");
  const maker<B, T>& make = rules<B, T>().find(rule);
  const matrix<T> w0 = matrix_of<T>("W0", member(c, "W0"));
  const json& gradients = member(c, "G");
  const bool two = c.contains("G_ref");
  if (two && c.at("G_ref").size() != gradients.size())
    throw bad_value("G_ref", std::to_string(c.at("G_ref").size()) + " gradients", std::to_string(gradients.size()));
  const bool compare = c.contains("W");
  if (compare && c.at("W").size() != gradients.size())
    throw bad_value("W", std::to_string(c.at("W").size()) + " weights", std::to_string(gradients.size()));

  settings_reader settings(rule, member(c, "settings"));
  prepared<B, T> p = make(backend, settings, two);
  settings.ignore("lr");
  settings.finish();
  if (p.optimizer.needs_reference() && !two)
    throw error("rule \"" + rule + "\" estimates from two gradients: \"G_ref\" is missing");
  placed_matrix<B, T> w(backend, w0), g(backend, w0), r(backend, w0);
  const auto as_stored = [&](const view<T>& v) { return p.transposed ? v.t() : v; };
  p.optimizer.add("w", as_stored(w.view()), as_stored(g.view()), as_stored(r.view()));
  p.optimizer.finalize();
  put_state(p.optimizer, p.state);

  json weights = json::array(), ranks = json::array();
  for (std::size_t t = 0; t < gradients.size(); ++t) {
    g.put(matrix_of<T>("G", gradients[t], w0.rows, w0.cols));
    if (two && t > 0) r.put(matrix_of<T>("G_ref", c.at("G_ref")[t], w0.rows, w0.cols));
    p.optimizer.step(p.lr);
    matrix<T> kept;
    if (!p.weight.empty()) kept = state_of<B, T>(p.optimizer, p.weight, w0.rows, w0.cols);
    const view<T> now = p.weight.empty() ? w.get() : kept.view();
    weights.push_back(json_of(now));
    ranks.push_back(p.optimizer.ranks().front());
    if (compare)
      out.error =
          std::max(out.error.value_or(0), distance(now, matrix_of<double>("W", c.at("W")[t], w0.rows, w0.cols)));
    if (c.contains("rank") && c.at("rank").at(t) != ranks[t]) out.error = std::numeric_limits<double>::infinity();
  }
  if (!p.optimizer.poll_status()) throw bad_value("a gradient", "not finite", "finite");
  out.computed["W"] = weights;
  if (c.contains("rank")) out.computed["rank"] = ranks;
}

// Of the first matrix that a case begins with.
std::string shape_of(const json& c) {
  for (const char* start : {"X", "W0"})
    if (c.is_object() && c.contains(start) && c.at(start).is_array() && !c.at(start).empty())
      return std::to_string(c.at(start).size()) + "x" + std::to_string(c.at(start)[0].size());
  return "?";
}

}  // namespace

template <class T, class B>
outcome run(B& backend, const json& c) {
  outcome out;
  out.computed = c;
  out.label = label_of(c);
  out.shape = shape_of(c);
  const std::string rule = member(c, "rule");
  if (const auto* compute = rules<B, T>().computation_of(rule)) {
    settings_reader settings(rule, member(c, "settings"));
    (*compute)(backend, settings, c, out);
  } else if (c.contains("H")) {
    run_compression(c, out), out.on_cpu = true;
  } else {
    trajectory<B, T>(backend, c, out);
  }
  return out;
}
template outcome run<double>(backend_here&, const json&);
template outcome run<float>(backend_here&, const json&);

template <class B, class T>
const rule_table<B, T>& rules() {
  static const rule_table<B, T> table = [] {
    rule_table<B, T> t;
    add_muon_rules(t), add_normalized_rules(t), add_adaptive_rules(t), add_estimator_rules(t);
    add_baseline_rules(t), add_direction_rules(t), add_constraint_rules(t);
    add_product_rules(t);
    add_directions(t);
    add_basis_rules(t);
    add_functions(t);
    return t;
  }();
  return table;
}
template const rule_table<backend_here, double>& rules();
template const rule_table<backend_here, float>& rules();

namespace {

runner runner_on(std::shared_ptr<backend_here> backend, bool in_double) {
  return [=](const json& c) { return in_double ? run<double>(*backend, c) : run<float>(*backend, c); };
}

}  // namespace

#ifdef __CUDACC__
runner runner_on_cuda(bool in_double) { return runner_on(std::make_shared<backend_here>(), in_double); }
#else
runner runner_on_cpu(bool in_double) { return runner_on(std::make_shared<backend_here>(1), in_double); }
#endif

}  // namespace replay
