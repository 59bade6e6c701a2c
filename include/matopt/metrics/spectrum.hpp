// Metrics of a matrix from its singular values s_1 >= s_2 >= ...
//
//   spectral norm     s_1
//   stable rank       ||W||_F^2 / s_1^2                                  NuMuon, arXiv 2603.03597, section 3.1
//   effective rank    exp(-sum p_i ln p_i), p_i = s_i / sum s            entropy rank (Roy, Vetterli 2007)
//   energy rank       least k with sum over i <= k of s_i^2 >= fraction of the whole
//
// Ranks of the zero matrix are 0.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <utility>
#include <vector>

#include "../core/settings.hpp"
#include "../core/thin_svd.hpp"

namespace MATOPT_NAMESPACE {

class spectrum {
 public:
  // Of one matrix (rows = fan-out) in host memory.
  template <class B, class T>
  spectrum(B& backend, const view<T>& w) : spectrum(thin_svd::of(backend, dense<double>(w))) {}
  explicit spectrum(const thin_svd& d) {
    for (index_t i = 0; i < d.s.rows(); ++i) values_.push_back(d.s(i, 0));
  }
  // Of singular values that the caller has, descending. Error: bad_value if they do not descend to 0 or more.
  explicit spectrum(std::vector<double> values) : values_(std::move(values)) {
    for (std::size_t i = 0; i < values_.size(); ++i)
      if (!(values_[i] >= 0 && (i == 0 || values_[i] <= values_[i - 1])))
        throw bad_value("a singular value", detail::text(values_[i]), "numbers from 0 up, the greatest first");
  }

  const std::vector<double>& values() const { return values_; }
  double spectral_norm() const { return values_.empty() ? 0 : values_.front(); }
  double frobenius_norm() const { return spectral_norm() * std::sqrt(stable_rank()); }
  double stable_rank() const {
    if (!(spectral_norm() > 0)) return 0;
    double sum = 0;
    for (const double s : values_) sum += s / spectral_norm() * (s / spectral_norm());
    return sum;
  }
  double effective_rank() const {
    if (!(spectral_norm() > 0)) return 0;
    double sum = 0, entropy = 0;
    for (const double s : values_) sum += s / spectral_norm();
    for (const double s : values_)
      if (const double p = s / spectral_norm() / sum; p > 0) entropy -= p * std::log(p);
    return std::exp(entropy);
  }
  index_t energy_rank(double fraction) const {
    if (!(fraction > 0 && fraction <= 1)) throw bad_value("fraction", detail::text(fraction), "(0, 1]");
    if (!(spectral_norm() > 0)) return 0;
    const double goal = fraction * stable_rank() * (1 - 1e-12);
    double sum = 0;
    for (std::size_t k = 0; k < values_.size(); ++k) {
      sum += values_[k] / spectral_norm() * (values_[k] / spectral_norm());
      if (sum >= goal) return static_cast<index_t>(k) + 1;
    }
    return static_cast<index_t>(values_.size());
  }

 private:
  std::vector<double> values_;
};

}  // namespace MATOPT_NAMESPACE
