// The rate of weights as BackSlash defines it (arXiv 2504.16968): a measure of the bits that they cost.
//
//   R = (1 / N) sum (|w| + eps)^nu        over the N entries; nu is the shape of the generalised Gaussian that they look
//                                         like (core/gaussian_shape.hpp), within [0.1, 3]
//
//   weight_rate r = weight_rate::of(w);                                of one matrix in host memory (rows = fan-out)
//   weight_rate r = weight_rate::of(std::span(several));               of all entries of several, with one nu
//
// Smaller weights have a lower R; a lower nu means that many entries are near 0 and few are large. eps is 1 unless given,
// as in rate_penalty. nu is 2 of zeros alone; entries of one size have no nu, and get 3, the end of the range. Error:
// bad_value for no entries, for one that is not finite, or for a negative eps.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "../core/error.hpp"
#include "../core/gaussian_shape.hpp"
#include "../core/settings.hpp"
#include "../core/view.hpp"

namespace MATOPT_NAMESPACE {

struct weight_rate {
  double shape = 2;  // nu
  double rate = 0;   // R

  template <class T>
  static weight_rate of(std::span<const view<T>> matrices, double eps = 1) {
    if (!(eps >= 0) || !std::isfinite(eps)) throw bad_value("eps", detail::text(eps), "a finite number >= 0");
    double count = 0, greatest = 0;
    for_each_size(matrices, [&](double x) {
      if (!std::isfinite(x)) throw bad_value("an entry of the weights", detail::text(x), "finite numbers");
      ++count, greatest = std::max(greatest, x);
    });
    if (!(count > 0)) throw bad_value("the number of entries of the weights", "0", "1 or more");
    double squares = 0, sum = 0;  // relative to the greatest entry, so that no square over- or underflows
    if (greatest > 0)
      for_each_size(matrices, [&](double x) { sum += x / greatest, squares += x / greatest * (x / greatest); });
    weight_rate found;
    fn::gaussian_shape{count}(found.shape, squares, sum);
    for_each_size(matrices, [&](double x) { found.rate += std::pow(x + eps, found.shape); });
    found.rate /= count;
    return found;
  }
  template <class T>
  static weight_rate of(const view<T>& w, double eps = 1) {
    return of(std::span<const view<T>>(&w, 1), eps);
  }

 private:
  template <class T, class F>
  static void for_each_size(std::span<const view<T>> matrices, F&& f) {
    for (const view<T>& w : matrices)
      for (index_t i = 0; i < w.rows; ++i)
        for (index_t j = 0; j < w.cols; ++j) f(std::abs(static_cast<double>(w(i, j))));
  }
};

}  // namespace MATOPT_NAMESPACE
