// Reads the golden files: float64 reference trajectories, one JSON object per case.
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <matopt/core/view.hpp>

namespace matopt::test {

struct dense_matrix {
  index_t rows = 0, cols = 0;
  std::vector<double> data;  // row-major

  matopt::view<double> as_view() { return row_major(data.data(), rows, cols); }
  double operator()(index_t i, index_t j) const { return data[static_cast<std::size_t>(i * cols + j)]; }
};

inline dense_matrix matrix_of(const nlohmann::json& j) {
  dense_matrix m{static_cast<index_t>(j.size()), static_cast<index_t>(j.at(0).size()), {}};
  for (const auto& row : j)
    for (const auto& x : row) m.data.push_back(x.get<double>());
  return m;
}

inline std::vector<nlohmann::json> golden_cases(const std::string& file) {
  std::ifstream in(std::string(MATOPT_GOLDEN_DIR) + "/" + file);
  if (!in) throw std::runtime_error("cannot read " + file);
  return nlohmann::json::parse(in).at("cases").get<std::vector<nlohmann::json>>();
}

// max |a - b| / max |b|
template <class A, class B>
double relative_error(const A& a, const B& b) {
  double worst = 0, scale = 0;
  for (index_t i = 0; i < b.rows; ++i)
    for (index_t j = 0; j < b.cols; ++j) {
      const double x = static_cast<double>(a(i, j)), y = static_cast<double>(b(i, j));
      if (!(std::abs(x - y) <= worst)) worst = std::abs(x - y);  // also catches NaN
      scale = std::max(scale, std::abs(y));
    }
  return scale > 0 ? worst / scale : worst;
}

}  // namespace matopt::test
