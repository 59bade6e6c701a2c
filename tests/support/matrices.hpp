// Matrices for tests: owned storage in every layout, reproducible contents, comparisons, and naive linear algebra in
// double.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <matopt/core/math.hpp>
#include <matopt/core/types.hpp>
#include <matopt/core/view.hpp>

namespace matopt::test {

enum class layout { row_major, column_major, transposed, sub_block };
inline constexpr layout all_layouts[] = {layout::row_major, layout::column_major, layout::transposed,
                                         layout::sub_block};
inline std::string name_of(layout l) {
  constexpr const char* names[] = {"row-major", "column-major", "transposed view", "sub-block"};
  return names[static_cast<int>(l)];
}

// Uniform numbers in [-1, 1) from a counter: the same on every machine.
class uniform {
 public:
  explicit uniform(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  double operator()() {
    state_ += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
  }

 private:
  std::uint64_t state_;
};

template <class To>
To converted(double x) {
  if constexpr (storage_only<To>)
    return To(static_cast<float>(x));
  else
    return static_cast<To>(x);
}

// A matrix (or a stack of `batch` of them) in memory of its own. A sub-block has a border around it; intact() tells
// whether that border is as it was.
template <class T>
class stored {
 public:
  stored(index_t rows, index_t cols, layout l = layout::row_major, index_t batch = 1) {
    const index_t top = l == layout::sub_block ? 1 : 0, left = l == layout::sub_block ? 2 : 0;
    const index_t height = rows + 3 * top, width = cols + 3 * left;
    memory_.assign(static_cast<std::size_t>(height * width * batch), converted<T>(border));
    if (l == layout::column_major)
      v_ = col_major(memory_.data(), rows, cols, batch);
    else if (l == layout::transposed)
      v_ = row_major(memory_.data(), cols, rows, batch).t();
    else
      v_ = row_major(memory_.data(), height, width, batch).row_block(top, rows).col_block(left, cols);
    fill([](index_t, index_t, index_t) { return 0.0; });
  }
  stored(const stored&) = delete;
  stored& operator=(const stored&) = delete;
  stored(stored&& o) noexcept : memory_(std::move(o.memory_)), v_(o.v_) {}

  matopt::view<T> v() { return v_; }
  matopt::view<const T> cv() const { return v_; }
  T operator()(index_t i, index_t j, index_t b = 0) const { return v_(i, j, b); }
  std::vector<T>& memory() { return memory_; }
  std::size_t bytes() const { return memory_.size() * sizeof(T); }

  template <class F>
  void fill(F f) {
    for (index_t b = 0; b < v_.batch; ++b)
      for (index_t i = 0; i < v_.rows; ++i)
        for (index_t j = 0; j < v_.cols; ++j) v_(i, j, b) = converted<T>(f(i, j, b));
  }
  void fill_random(std::uint64_t seed, double scale = 1) {
    uniform next(seed);
    fill([&](index_t, index_t, index_t) { return scale * next(); });
  }

  bool intact() const {
    std::vector<bool> inside(memory_.size(), false);
    for (index_t b = 0; b < v_.batch; ++b)
      for (index_t i = 0; i < v_.rows; ++i)
        for (index_t j = 0; j < v_.cols; ++j) inside[static_cast<std::size_t>(&v_(i, j, b) - memory_.data())] = true;
    for (std::size_t i = 0; i < memory_.size(); ++i)
      if (!inside[i] && static_cast<double>(memory_[i]) != border) return false;
    return true;
  }

 private:
  static constexpr double border = 77;
  std::vector<T> memory_;
  matopt::view<T> v_;
};

// The elements in row-major order, as they are.
template <class T>
std::vector<std::remove_const_t<T>> elements(view<T> v) {
  std::vector<std::remove_const_t<T>> out;
  for (index_t b = 0; b < v.batch; ++b)
    for (index_t i = 0; i < v.rows; ++i)
      for (index_t j = 0; j < v.cols; ++j) out.push_back(v(i, j, b));
  return out;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T>
bool all_finite(view<T> v) {
  for (const auto x : elements(v))
    if (!math::finite(static_cast<double>(x))) return false;
  return true;
}

// --- naive linear algebra in double ---
struct mat {
  index_t rows = 0, cols = 0;
  std::vector<double> a{};

  mat() = default;
  mat(index_t m, index_t n) : rows(m), cols(n), a(static_cast<std::size_t>(m * n), 0.0) {}
  mat(index_t m, index_t n, std::initializer_list<double> x) : rows(m), cols(n), a(x) {}
  double& operator()(index_t i, index_t j) { return a[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(index_t i, index_t j) const { return a[static_cast<std::size_t>(i * cols + j)]; }
  matopt::view<double> v() { return row_major(a.data(), rows, cols); }
};
template <class T>
mat to_mat(view<T> v) {
  mat m(v.rows, v.cols);
  for (index_t i = 0; i < v.rows; ++i)
    for (index_t j = 0; j < v.cols; ++j) m(i, j) = static_cast<double>(v(i, j));
  return m;
}
inline mat random_mat(index_t rows, index_t cols, std::uint64_t seed) {
  mat m(rows, cols);
  uniform next(seed);
  for (auto& x : m.a) x = next();
  return m;
}
inline mat transposed(const mat& x) {
  mat y(x.cols, x.rows);
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < x.cols; ++j) y(j, i) = x(i, j);
  return y;
}
inline mat operator*(const mat& x, const mat& y) {
  mat z(x.rows, y.cols);
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t k = 0; k < x.cols; ++k)
      for (index_t j = 0; j < y.cols; ++j) z(i, j) += x(i, k) * y(k, j);
  return z;
}
inline mat operator*(double c, mat x) {
  for (auto& e : x.a) e *= c;
  return x;
}
inline mat operator+(mat x, const mat& y) {
  for (std::size_t i = 0; i < x.a.size(); ++i) x.a[i] += y.a[i];
  return x;
}
inline mat operator-(const mat& x, const mat& y) { return x + (-1.0) * y; }
inline double dot(const mat& x, const mat& y) { return std::inner_product(x.a.begin(), x.a.end(), y.a.begin(), 0.0); }
inline double frobenius(const mat& x) { return std::sqrt(dot(x, x)); }
inline double largest(const mat& x) {
  double m = 0;
  for (const double e : x.a) m = std::max(m, std::isnan(e) ? 1e300 : std::abs(e));
  return m;
}
inline mat identity(index_t n) {
  mat m(n, n);
  for (index_t i = 0; i < n; ++i) m(i, i) = 1;
  return m;
}
inline mat columns(const mat& x, index_t first, index_t count) {
  mat y(x.rows, count);
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < count; ++j) y(i, j) = x(i, first + j);
  return y;
}

// A random matrix with orthonormal columns, rows >= cols: Gram-Schmidt, twice.
inline mat random_orthonormal(index_t rows, index_t cols, std::uint64_t seed) {
  mat q = random_mat(rows, cols, seed);
  for (index_t j = 0; j < cols; ++j)
    for (int round = 0; round < 2; ++round) {
      for (index_t k = 0; k < j; ++k) {
        double along = 0;
        for (index_t i = 0; i < rows; ++i) along += q(i, k) * q(i, j);
        for (index_t i = 0; i < rows; ++i) q(i, j) -= along * q(i, k);
      }
      double n = 0;
      for (index_t i = 0; i < rows; ++i) n += q(i, j) * q(i, j);
      for (index_t i = 0; i < rows; ++i) q(i, j) /= std::sqrt(n);
    }
  return q;
}
// U diag(s) V^T with random factors.
inline mat with_spectrum(index_t rows, index_t cols, const std::vector<double>& s, std::uint64_t seed) {
  const auto r = static_cast<index_t>(s.size());
  mat u = random_orthonormal(rows, r, seed);
  const mat v = random_orthonormal(cols, r, seed + 1000);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < r; ++j) u(i, j) *= s[static_cast<std::size_t>(j)];
  return u * transposed(v);
}

// Singular values, descending, and factors; plain two-sided-safe one-sided Jacobi on the columns, independent of the
// library's.
struct svd_factors {
  mat u, v;
  std::vector<double> s;
};
inline svd_factors naive_svd(const mat& x) {
  if (x.rows < x.cols) {
    auto f = naive_svd(transposed(x));
    return {f.v, f.u, f.s};
  }
  const index_t n = x.cols;
  mat y = x, v = identity(n);
  for (int sweep = 0; sweep < 60; ++sweep) {
    bool rotated = false;
    for (index_t p = 0; p < n; ++p)
      for (index_t q = p + 1; q < n; ++q) {
        double pp = 0, qq = 0, pq = 0;
        for (index_t i = 0; i < x.rows; ++i) {
          pp += y(i, p) * y(i, p);
          qq += y(i, q) * y(i, q);
          pq += y(i, p) * y(i, q);
        }
        if (std::abs(pq) <= 1e-16 * std::sqrt(pp * qq) || pq == 0) continue;
        rotated = true;
        const double zeta = (qq - pp) / (2 * pq),
                     t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta)),
                     c = 1 / std::hypot(1.0, t), s = c * t;
        for (mat* m : {&y, &v})
          for (index_t i = 0; i < m->rows; ++i) {
            const double a = (*m)(i, p), b = (*m)(i, q);
            (*m)(i, p) = c * a - s * b;
            (*m)(i, q) = s * a + c * b;
          }
      }
    if (!rotated) break;
  }
  std::vector<std::pair<double, index_t>> order;
  for (index_t j = 0; j < n; ++j) order.emplace_back(-frobenius(columns(y, j, 1)), j);
  std::sort(order.begin(), order.end());
  svd_factors f{mat(x.rows, n), mat(n, n), {}};
  for (index_t j = 0; j < n; ++j) {
    const auto [s, from] = order[static_cast<std::size_t>(j)];
    f.s.push_back(-s);
    for (index_t i = 0; i < x.rows; ++i) f.u(i, j) = s < 0 ? y(i, from) / -s : 0;
    for (index_t i = 0; i < n; ++i) f.v(i, j) = v(i, from);
  }
  return f;
}
inline std::vector<double> singular_values(const mat& x) { return naive_svd(x).s; }
inline double nuclear_norm(const mat& x) {
  const auto s = singular_values(x);
  return std::accumulate(s.begin(), s.end(), 0.0);
}
inline double spectral_norm(const mat& x) { return singular_values(x).front(); }
// U_k V_k^T by the naive decomposition
inline mat top_k_polar(const mat& x, index_t k) {
  const auto f = naive_svd(x);
  return columns(f.u, 0, k) * transposed(columns(f.v, 0, k));
}

}  // namespace matopt::test
