// Rows of coefficients of the user's own, one for each step of an iteration. As text: 2 to 5 numbers a row, which are
// the coefficients of x, x^3, x^5, x^7 and x^9, with commas between them and semicolons between rows.
//
//   coefficient_rows own{{1.5, -0.5}, {1.875, -1.25, 0.375}};       "1.5,-0.5;1.875,-1.25,0.375"
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../core/settings.hpp"
#include "coefficient_report.hpp"

namespace MATOPT_NAMESPACE {

class coefficient_rows {
 public:
  coefficient_rows() = default;
  coefficient_rows(std::initializer_list<odd_polynomial> rows) : rows_(rows) {}
  explicit coefficient_rows(std::vector<odd_polynomial> rows) : rows_(std::move(rows)) {}

  bool empty() const { return rows_.empty(); }
  index_t size() const { return static_cast<index_t>(rows_.size()); }
  // The row of step `i`, counted from 0; the last one repeats.
  const odd_polynomial& operator[](index_t i) const { return rows_[static_cast<std::size_t>(std::min(i, size() - 1))]; }

  [[gnu::cold]] std::string text() const {
    std::string all;
    for (const odd_polynomial& p : rows_) {
      const double c[] = {p.a, p.b, p.c, p.d, p.e};
      const index_t terms = (p.degree() + 1) / 2;
      if (&p != rows_.data()) all += ';';
      for (index_t i = 0; i < terms; ++i) all += (i ? "," : "") + detail::text(c[i]);
    }
    return all;
  }
  [[gnu::cold]] static coefficient_rows parse(std::string_view name, std::string_view text) {
    coefficient_rows out;
    for (bool more = !text.empty(); more;) {
      const std::size_t end = text.find(';');
      const std::string_view row = text.substr(0, end);
      std::vector<double> c;
      detail::parse(name, row, c);
      if (c.size() < 2 || c.size() > 5)
        throw bad_value("a row of " + std::string(name), '"' + std::string(row) + '"',
                        "2 to 5 numbers: the coefficients of x, x^3, x^5, x^7 and x^9");
      for (const double x : c)
        if (!std::isfinite(x)) throw bad_value("a row of " + std::string(name), '"' + std::string(row) + '"', "finite");
      c.resize(5);
      out.rows_.push_back({c[0], c[1], c[2], c[3], c[4]});
      more = end != text.npos;
      if (more) text.remove_prefix(end + 1);
    }
    return out;
  }

  // Throws bad_value, of the setting `name`, unless there is no row, one, or one for each of `steps`; and unless they
  // are bounded, or taken `unchecked`.
  [[gnu::cold]] void require(const char* name, const char* steps_name, index_t steps, bool unchecked) const {
    if (empty()) return;
    if (size() != 1 && size() != steps)
      throw bad_value(name, std::to_string(size()) + " rows",
                      std::string("one row for each step, of which ") + steps_name + " says " + std::to_string(steps) +
                          ", or one for all");
    for (const odd_polynomial& p : rows_)
      for (const double c : {p.a, p.b, p.c, p.d, p.e})
        if (!std::isfinite(c)) throw bad_value(name, detail::text(c), "finite");
    if (unchecked) return;
    // What a chain of products in 16 bits or in float has room for.
    constexpr double largest_coefficient = 1e6, largest_between = 8;
    for (const odd_polynomial& p : rows_)
      for (const double c : {p.a, p.b, p.c, p.d, p.e})
        if (std::abs(c) > largest_coefficient)
          throw bad_value(name, detail::text(c), "at most " + detail::text(largest_coefficient) + " in size");
    singular_interval last{};
    const coefficient_report r = detail::walk_coefficients([&](index_t i) { return (*this)[i]; }, steps, 1e-3,
                                                           1 + 0x1p-7, 1.5, [&](const auto& now) { last = now; });
    if (r.ok && r.largest > largest_between)
      throw bad_value(name, '"' + text() + "\", which takes singular values up to " + detail::text(r.largest),
                      "rows that leave them at most " + detail::text(largest_between) + " in each step");
    if (!r.ok)
      throw bad_value(name,
                      '"' + text() + "\", which takes singular values of [0.001, 1.0078] to [" +
                          detail::text(last.low) + ", " + detail::text(last.high) + "] and smaller ones up to " +
                          detail::text(r.sup),
                      "rows that leave every singular value above 0 in each step, and at most 1.5 in the end");
  }

 private:
  std::vector<odd_polynomial> rows_;
};

}  // namespace MATOPT_NAMESPACE
