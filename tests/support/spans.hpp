// Matrices whose columns' span orthonormalize has to find, and how far a result is from what its contract says.
#pragma once
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <matopt/core/backend.hpp>

#include "matrices.hpp"

namespace matopt::test {

struct span_case {
  std::string name;
  index_t rows, cols;
  std::function<double(index_t, index_t)> x;
  std::function<bool(index_t)> dependent;  // whether column j must become zero; none where that is not certain
  bool span_kept = true;
};

// Of one shape, in float or double.
template <class T>
std::vector<span_case> span_cases(index_t m, index_t n) {
  std::vector<span_case> all;
  const auto add = [&](const std::string& name, std::function<double(index_t, index_t)> x,
                       std::function<bool(index_t)> dependent, bool span_kept = true) {
    all.push_back({name, m, n, std::move(x), std::move(dependent), span_kept});
  };
  const mat noise = random_mat(m, n, 1);
  const auto surplus = [=](index_t j) { return j >= m; };
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  add("noise", noise, surplus);
  add(
      "large", [=](index_t i, index_t j) { return 1e30 * noise(i, j); }, surplus);
  add(
      "small", [=](index_t i, index_t j) { return 1e-30 * noise(i, j); }, surplus);
  add(
      "as large as can be",
      [=](index_t i, index_t j) { return static_cast<double>(std::numeric_limits<T>::max()) * noise(i, j); }, surplus);
  add(
      "graded columns",
      [=](index_t i, index_t j) {
        return noise(i, j) * std::pow(10.0, -35.0 * static_cast<double>(j) / static_cast<double>(n));
      },
      surplus);
  add(
      "zero", [](index_t, index_t) { return 0.0; }, [](index_t) { return true; });
  add(
      "ones", [](index_t, index_t) { return 1.0; }, [](index_t j) { return j > 0; });
  add(
      "rank one", [=](index_t i, index_t j) { return noise(i, 0) * (static_cast<double>(j % 7) - 3.5); },
      [](index_t j) { return j > 0; });
  if (m >= n) {
    add(
        "zero columns", [=](index_t i, index_t j) { return j % 3 == 0 ? 0.0 : noise(i, j); },
        [](index_t j) { return j % 3 == 0; });
    add(
        "columns in pairs", [=](index_t i, index_t j) { return (j % 2 ? -2 : 1) * noise(i, j - j % 2); },
        [](index_t j) { return j % 2 == 1; });
    add(
        "the last columns repeat the first",
        [=](index_t i, index_t j) { return noise(i, j < n - n / 3 ? j : n - 1 - j); },
        [=](index_t j) { return j >= n - n / 3; });
    add(
        "sums of two columns",
        [=](index_t i, index_t j) { return j < n - n / 3 ? noise(i, j) : noise(i, n - 1 - j) + noise(i, (n - j) / 2); },
        [=](index_t j) { return j >= n - n / 3; });
  }
  const auto mixed = [&](const std::string& name, auto value, double beside = 0) {
    const index_t q = std::min(m, n);
    mat left = random_mat(m, q, 2);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < q; ++j) left(i, j) *= value(j);
    add(name, left * random_mat(q, n, 3) + beside * noise, nullptr);
  };
  mixed("1 / i", [](index_t j) { return 1 / static_cast<double>(j + 1); });
  mixed("0.95^i", [](index_t j) { return std::pow(0.95, static_cast<double>(j)); });
  mixed("0.5^i", [](index_t j) { return std::pow(0.5, static_cast<double>(j)); });
  mixed("rank 16", [](index_t j) { return j < 16 ? 1.0 : 0.0; });
  mixed(
      "rank 16, a thousandth beside it", [](index_t j) { return j < 16 ? 1.0 : 0.0; }, 1e-3);
  mixed(
      "rank 16, a millionth beside it", [](index_t j) { return j < 16 ? 1.0 : 0.0; }, 1e-6);
  add(
      "Hilbert", [](index_t i, index_t j) { return 1 / static_cast<double>(i + j + 1); }, nullptr);
  // x_0 = e_0, x_j = e_(j-1) + small e_j: each column lies along what is left of the one before.
  const double small = 20 * eps;
  const mat turn = random_orthonormal(m, std::min(m, n), 5);
  add(
      "a chain",
      [=](index_t i, index_t j) { return j >= m   ? 0.0
                                         : j == 0 ? turn(i, 0)
                                                  : turn(i, j - 1) + small * turn(i, j); },
      nullptr, false);
  return all;
}

struct span_errors {
  double orthogonality, span;  // |Q^T Q - D|; the largest |x - Q Q^T x| / |x|
  std::vector<bool> zero;      // columns of Q
  bool diagonal_positive;      // Q^T X's, where Q's column is not zero
};
inline span_errors errors_of_span(const mat& q, mat x) {
  span_errors e{0, 0, {}, true};
  for (index_t j = 0; j < x.cols; ++j)
    if (const double size = largest(columns(x, j, 1)); size > 0)
      for (index_t i = 0; i < x.rows; ++i) x(i, j) /= size;
  const mat gram = transposed(q) * q, r = transposed(q) * x, rest = x - q * r;
  for (index_t j = 0; j < q.cols; ++j) {
    e.zero.push_back(largest(columns(q, j, 1)) == 0);
    for (index_t i = 0; i < q.cols; ++i)
      e.orthogonality = std::max(e.orthogonality, largest(mat(1, 1, {gram(i, j) - (i == j && !e.zero.back())})));
    if (const double length = frobenius(columns(x, j, 1)); length > 0)
      e.span = std::max(e.span, frobenius(columns(rest, j, 1)) / length);
    if (!e.zero.back() && !(r(j, j) > 0)) e.diagonal_positive = false;
  }
  return e;
}

// The verb, with a workspace of its own.
template <class B, class T>
void orthonormalize(B& backend, const status_word* guard, matopt::view<T> x, double tolerance) {
  auto work = backend.allocate(backend.template orthonormalize_workspace<T>(x.rows, x.cols, x.batch));
  backend.orthonormalize(guard, x, static_cast<T>(tolerance), work.data());
}

}  // namespace matopt::test
