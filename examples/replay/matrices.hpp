// Matrices of cases, on the host: from JSON and back, and how far two of them are apart.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <matopt/core/error.hpp>
#include <matopt/core/view.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace replay {

using json = nlohmann::json;
using matopt::index_t, matopt::bad_value;

inline const json& member(const json& object, const char* name) {
  if (!object.is_object() || !object.contains(name)) throw matopt::error("\"" + std::string(name) + "\" is missing");
  return object.at(name);
}

template <class T>
struct matrix {
  index_t rows = 0, cols = 0;
  std::vector<T> data;  // row-major

  matopt::view<T> view() { return matopt::row_major(data.data(), rows, cols); }
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
      const double value = x.get<double>();
      if (std::abs(value) > static_cast<double>(std::numeric_limits<T>::max()))
        throw bad_value("an entry of " + name, x.dump(), "finite in the element type");
      m.data.push_back(static_cast<T>(value));
    }
  }
  if (rows > 0 && (m.rows != rows || m.cols != cols))
    throw refuse(std::to_string(m.rows) + "x" + std::to_string(m.cols));
  return m;
}

// A matrix with a copy in the memory of a backend, which may be another than the host's.
template <class B, class T>
class placed_matrix {
 public:
  placed_matrix(B& backend, matrix<T> m) : backend_(backend), host_(std::move(m)), copy_(backend.allocate(bytes())) {
    put(host_);
  }
  matopt::view<T> view() { return matopt::row_major(reinterpret_cast<T*>(copy_.data()), host_.rows, host_.cols); }
  void put(const matrix<T>& m) { backend_.upload(copy_.data(), m.data.data(), bytes()); }
  // Waits.
  matopt::view<T> get() {
    backend_.download(host_.data.data(), copy_.data(), bytes());
    return host_.view();
  }

 private:
  std::size_t bytes() const { return host_.data.size() * sizeof(T); }

  B& backend_;
  matrix<T> host_;
  typename B::buffer copy_;
};

template <class T>
json json_of(const matopt::view<T>& m) {
  json rows = json::array();
  for (index_t i = 0; i < m.rows; ++i) {
    json row = json::array();
    for (index_t j = 0; j < m.cols; ++j) row.push_back(static_cast<double>(m(i, j)));
    rows.push_back(std::move(row));
  }
  return rows;
}

template <class T>
double distance(const matopt::view<T>& ours, const matrix<double>& theirs) {
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

}  // namespace replay
