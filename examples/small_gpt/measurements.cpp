#include "measurements.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <map>
#include <matopt/metrics/rows.hpp>
#include <matopt/metrics/spectrum.hpp>
#include <matopt/metrics/weight_rate.hpp>
#include <numeric>

namespace small_gpt {

using nlohmann::json;

std::string layer_kind(const std::string& name) {
  const auto dot = name.find('.');
  const std::string kind = name.starts_with("layer") && dot != std::string::npos ? name.substr(dot + 1) : name;
  for (const auto& [block, letter] : {std::pair{"qkv.0", "q"}, {"qkv.1", "k"}, {"qkv.2", "v"}})
    if (kind == block) return letter;
  return kind;
}

namespace {

// Without vectors, which is many times as fast as with them, and from the Gram matrix in double: its eigenvalues give singular
// values down to 1e-8 of the largest, and entries in float have no more digits. (Eigen's BDCSVD takes half a minute to compile.)
matopt::spectrum spectrum_of(const matopt::view<const float>& w) {
  Eigen::MatrixXd tall(std::max(w.rows, w.cols), std::min(w.rows, w.cols));
  for (matopt::index_t i = 0; i < w.rows; ++i)
    for (matopt::index_t j = 0; j < w.cols; ++j) (w.rows < w.cols ? tall(j, i) : tall(i, j)) = w(i, j);
  if (!tall.allFinite()) throw matopt::bad_value("an entry of a matrix to measure", "not finite", "finite numbers");
  const Eigen::MatrixXd gram = tall.transpose() * tall;
  const Eigen::VectorXd squares =
      Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram, Eigen::EigenvaluesOnly).eigenvalues();
  std::vector<double> values;  // descending
  for (matopt::index_t i = squares.size(); i-- > 0;) values.push_back(std::sqrt(std::max(squares(i), 0.0)));
  return matopt::spectrum(values);
}

json of_matrix(const matopt::view<const float>& w) {
  const matopt::spectrum s = spectrum_of(w);
  const std::vector<double> rows = matopt::row_norms(w);
  const matopt::weight_rate bits = matopt::weight_rate::of(w);
  json deciles = json::array();
  for (int d = 0; d <= 10; ++d)
    deciles.push_back(s.values()[static_cast<std::size_t>(d) * (s.values().size() - 1) / 10]);
  return {{"spectral_norm", s.spectral_norm()},
          {"stable_rank", s.stable_rank()},
          {"row_norms",
           {*std::min_element(rows.begin(), rows.end()),
            std::accumulate(rows.begin(), rows.end(), 0.0) / static_cast<double>(rows.size()),
            *std::max_element(rows.begin(), rows.end())}},
          {"coherence", matopt::row_coherence(s, w)},
          {"singular_values", std::move(deciles)},
          {"rate_shape", bits.shape},
          {"rate", bits.rate}};
}

}  // namespace

json measurements(gpt<float>& model, matopt::eigen_backend& cpu, const std::vector<matrix_step>& steps) {
  struct part {
    std::string name;
    matopt::view<const float> w;
    bool hidden;
  };
  std::vector<part> parts;
  for (const auto& p : model.parameters()) {
    std::vector<matopt::index_t> blocks = p.row_blocks;
    if (blocks.empty()) blocks.push_back(p.rows);
    matopt::index_t first = 0;
    for (std::size_t b = 0; b < blocks.size(); first += blocks[b++])
      parts.push_back({blocks.size() > 1 ? p.name + "." + std::to_string(b) : p.name,
                       matopt::row_major(static_cast<const float*>(p.value) + first * p.cols, blocks[b], p.cols),
                       p.kind == tensor_role::hidden});
  }
  std::vector<json> found(parts.size(), json::object());
  cpu.pool().parallel_for(static_cast<matopt::index_t>(parts.size()), [&](matopt::index_t i) {
    const part& p = parts[static_cast<std::size_t>(i)];
    if (p.hidden) found[static_cast<std::size_t>(i)] = of_matrix(p.w);
  });
  std::map<std::string, const matrix_step*> by_name;
  for (const auto& s : steps) by_name[s.name] = &s;
  json all = json::array();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    json& m = found[i];
    m["name"] = parts[i].name, m["kind"] = layer_kind(parts[i].name);
    if (const auto at = by_name.find(parts[i].name); at != by_name.end()) {
      m["weight_norm"] = at->second->weight_norm, m["update_to_weight"] = at->second->update_to_weight;
      m["gradient_norm"] = at->second->gradient_norm, m["cosine"] = at->second->cosine;
    }
    all.push_back(std::move(m));
  }
  return all;
}

}  // namespace small_gpt
