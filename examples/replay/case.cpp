#include "case.hpp"

#include <cmath>
#include <fstream>
#include <limits>
#include <matopt/compress/truncate.hpp>
#include <matopt/eigen.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "rules.hpp"

namespace replay {

using namespace matopt;

namespace {

const json& member(const json& object, const char* name) {
  if (!object.is_object() || !object.contains(name)) throw error("\"" + std::string(name) + "\" is missing");
  return object.at(name);
}

template <class T>
struct matrix {
  index_t rows = 0, cols = 0;
  std::vector<T> data;  // row-major

  matopt::view<T> view() { return row_major(data.data(), rows, cols); }
};

// A list of rows of numbers; of the given shape, if one is given.
template <class T>
matrix<T> matrix_of(const std::string& name, const json& j, index_t rows = 0, index_t cols = 0) {
  const auto refuse = [&](const std::string& found) {
    return bad_value(name, found,
                     rows > 0 ? std::to_string(rows) + "x" + std::to_string(cols) : "a list of equal rows");
  };
  if (!j.is_array() || j.empty() || !j[0].is_array() || j[0].empty())
    throw refuse(j.is_array() ? "a list" : j.type_name());
  matrix<T> m{static_cast<index_t>(j.size()), static_cast<index_t>(j[0].size()), {}};
  for (const auto& row : j) {
    if (!row.is_array() || static_cast<index_t>(row.size()) != m.cols) throw refuse("a list of unequal rows");
    for (const auto& x : row) {
      if (!x.is_number()) throw bad_value("an entry of " + name, x.dump(), "a number");
      m.data.push_back(static_cast<T>(x.get<double>()));
    }
  }
  if (rows > 0 && (m.rows != rows || m.cols != cols))
    throw refuse(std::to_string(m.rows) + "x" + std::to_string(m.cols));
  return m;
}

template <class T>
json json_of(const view<T>& m) {
  json rows = json::array();
  for (index_t i = 0; i < m.rows; ++i) {
    json row = json::array();
    for (index_t j = 0; j < m.cols; ++j) row.push_back(static_cast<double>(m(i, j)));
    rows.push_back(std::move(row));
  }
  return rows;
}

template <class T>
double distance(const view<T>& ours, const matrix<double>& theirs) {
  double worst = 0, scale = 0;
  for (index_t i = 0; i < theirs.rows; ++i)
    for (index_t j = 0; j < theirs.cols; ++j) {
      const double x = static_cast<double>(ours(i, j)), y = theirs.data[static_cast<std::size_t>(i * theirs.cols + j)];
      if (!(std::abs(x - y) <= worst))
        worst = std::isnan(x - y) ? std::numeric_limits<double>::infinity() : std::abs(x - y);
      scale = std::max(scale, std::abs(y));
    }
  return scale > 0 ? worst / scale : worst;
}

template <class T>
void put_state(any_optimizer<T>& opt, const std::map<std::string, json>& state) {
  for (const auto& [name, value] : state)
    for (const auto& t : opt.state_tensors())
      if (t.name == "w." + name) opt.write_state(t, matrix_of<T>(name, value, t.rows, t.cols).data.data());
}

// Steps the weight through the gradients.
template <class T>
void trajectory(eigen_backend& backend, const json& c, outcome& out) {
  matrix<T> w = matrix_of<T>("W0", member(c, "W0")), g = w, r = w;
  const json& gradients = member(c, "G");
  const bool two = c.contains("G_ref");
  if (two && c.at("G_ref").size() != gradients.size())
    throw bad_value("G_ref", std::to_string(c.at("G_ref").size()) + " gradients", std::to_string(gradients.size()));
  const bool compare = c.contains("W");
  if (compare && c.at("W").size() != gradients.size())
    throw bad_value("W", std::to_string(c.at("W").size()) + " weights", std::to_string(gradients.size()));

  const std::string rule = member(c, "rule");
  settings_reader settings(rule, member(c, "settings"));
  prepared<T> p = rules<T>().find(rule)(backend, settings, two);
  settings.ignore("lr");
  settings.finish();
  if (p.optimizer.needs_reference() && !two)
    throw error("rule \"" + rule + "\" estimates from two gradients: \"G_ref\" is missing");
  const auto as_stored = [&](const view<T>& v) { return p.transposed ? v.t() : v; };
  p.optimizer.add("w", as_stored(w.view()), as_stored(g.view()), as_stored(r.view()));
  p.optimizer.finalize();
  put_state(p.optimizer, p.state);

  json weights = json::array(), ranks = json::array();
  for (std::size_t t = 0; t < gradients.size(); ++t) {
    g.data = matrix_of<T>("G", gradients[t], w.rows, w.cols).data;
    if (two && t > 0) r.data = matrix_of<T>("G_ref", c.at("G_ref")[t], w.rows, w.cols).data;
    p.optimizer.rebind("w", as_stored(g.view()));
    if (p.optimizer.needs_reference()) p.optimizer.rebind_reference("w", as_stored(r.view()));
    p.optimizer.step(p.lr);
    weights.push_back(json_of(w.view()));
    ranks.push_back(p.optimizer.ranks().front());
    if (compare)
      out.error =
          std::max(out.error.value_or(0), distance(w.view(), matrix_of<double>("W", c.at("W")[t], w.rows, w.cols)));
    if (c.contains("rank") && c.at("rank").at(t) != ranks[t]) out.error = std::numeric_limits<double>::infinity();
  }
  if (!p.optimizer.poll_status()) throw bad_value("a gradient", "not finite", "finite");
  out.computed["W"] = weights;
  if (c.contains("rank")) out.computed["rank"] = ranks;
}

// A bare orthogonalizer.
template <class T>
void direction(eigen_backend& backend, const json& c, outcome& out) {
  matrix<T> x = matrix_of<T>("X", member(c, "X"));
  const std::string rule = member(c, "rule");
  settings_reader settings(rule, member(c, "settings"));
  const index_t q = std::min(x.rows, x.cols);
  const index_t k = rule == "top_k_exact" ? static_cast<index_t>(settings.number("k", static_cast<double>(q))) : q;
  if (k < 1 || k > q) throw bad_value("k", std::to_string(k), "[1, " + std::to_string(q) + "]");
  settings.finish();

  step_numbers<T> numbers;
  no_state none;
  const auto apply = [&](const auto& orthogonalizer) {
    const auto run_on = [&](eigen_backend::buffer& memory, arena& scratch) {
      scratch.base = memory.data(), scratch.top = 0;
      pass<eigen_backend, T> e(backend, scratch, nullptr, &numbers, 1, k);
      orthogonalizer.orthogonalize(e, none, x.view());
    };
    arena scratch;
    dry_backend<eigen_backend> dry{backend};
    pass<dry_backend<eigen_backend>, T> planned(dry, scratch, nullptr, nullptr, 1, k);
    orthogonalizer.orthogonalize(planned, none, x.view());
    auto memory = backend.allocate(scratch.peak);
    run_on(memory, scratch);
  };
  if (rule == "polar_exact" || rule == "top_k_exact")
    apply(svd_polar{});
  else if (rule == "newton_schulz5")
    apply(newton_schulz<>{});
  else if (rule == "polar_express5")
    apply(newton_schulz<>{.coefficients = coefficient_set::polar_express_angular});
  else
    throw error("unknown orthogonalizer \"" + rule + "\"; nearest: \"" +
                nearest_name(rule, {"polar_exact", "top_k_exact", "newton_schulz5", "polar_express5"}) + '"');
  if (c.contains("Y")) out.error = distance(x.view(), matrix_of<double>("Y", c.at("Y"), x.rows, x.cols));
  out.computed["Y"] = json_of(x.view());
}

// A weight cut to a rank. Always in double.
void compression(eigen_backend& backend, const json& c, outcome& out) {
  matrix<double> w = matrix_of<double>("W0", member(c, "W0"));
  matrix<double> h = matrix_of<double>("H", member(c, "H"), w.cols, w.cols);
  const std::string rule = member(c, "rule");
  settings_reader settings(rule, member(c, "settings"));
  const double keep = settings.number("keep", 1);
  const index_t rank =
      settings.has("rank") ? static_cast<index_t>(settings.number("rank", 1)) : rank_for(keep, w.rows, w.cols);
  settings.finish();
  const auto cut = [&] {
    if (rule == "truncated_svd") return truncation::plain(backend, w.view()).at(rank);
    if (rule == "svd_llm_whitening") return truncation::whitened(backend, w.view(), h.view()).at(rank);
    throw error("unknown compression \"" + rule + "\"; nearest: \"" +
                nearest_name(rule, {"truncated_svd", "svd_llm_whitening"}) + '"');
  };
  const dense<double> product = cut().product();
  const double loss = output_loss(w.view(), product.view(), h.view());
  if (c.contains("W")) {
    const json& theirs = c.at("W");
    out.error = distance(product.view(), matrix_of<double>("W", theirs, w.rows, w.cols));
    if (c.contains("loss")) {
      const double expected = c.at("loss").get<double>();
      out.error = std::max(*out.error, std::abs(loss - expected) / std::max(std::abs(expected), 1e-300));
    }
  }
  out.computed["W"] = json_of(product.view());
  out.computed["loss"] = loss;
}

}  // namespace

template <class T>
outcome run(eigen_backend& backend, const json& c) {
  outcome out;
  out.computed = c;
  out.label = c.is_object() ? c.value("label", c.value("rule", "?")) : "?";
  const json& start = c.is_object() && c.contains("X") ? c.at("X") : member(c, "W0");
  out.shape =
      start.is_array() && !start.empty() ? std::to_string(start.size()) + "x" + std::to_string(start[0].size()) : "?";
  if (c.contains("X"))
    direction<T>(backend, c, out);
  else if (c.contains("H"))
    compression(backend, c, out);
  else
    trajectory<T>(backend, c, out);
  return out;
}
template outcome run<double>(eigen_backend&, const json&);
template outcome run<float>(eigen_backend&, const json&);

std::vector<json> read_cases(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw bad_file(path + ": cannot be read");
  json file;
  try {
    file = json::parse(in);
  } catch (const json::parse_error& e) {
    throw bad_file(path + ": " + e.what());
  }
  if (!file.is_object() || !file.contains("cases") || !file.at("cases").is_array())
    throw bad_file(path + ": has no list \"cases\"");
  if (file.contains("format") && file.at("format") != 1)
    throw bad_value("format of " + path, file.at("format").dump(), "1");
  return file.at("cases").get<std::vector<json>>();
}

template <class T>
const rule_table<T>& rules() {
  static const rule_table<T> table = [] {
    rule_table<T> t;
    add_muon_rules(t), add_normalized_rules(t), add_adaptive_rules(t), add_estimator_rules(t);
    add_baseline_rules(t), add_direction_rules(t), add_constraint_rules(t);
    return t;
  }();
  return table;
}
template const rule_table<double>& rules<double>();
template const rule_table<float>& rules<float>();

}  // namespace replay
