// Training on the task, and the numbers that are read off a training.
#pragma once
#include <cmath>
#include <utility>
#include <vector>

#include "rules.hpp"

namespace associative_memory {

// Entry t is after t steps.
struct training {
  std::vector<double> loss, tail_to_head;

  // The first step after which the loss is below the limit; -1 if none is.
  int steps_to(double limit) const {
    for (std::size_t t = 0; t < loss.size(); ++t)
      if (loss[t] < limit) return static_cast<int>(t);
    return -1;
  }
  // Near the optimum a constant rate makes all facts swing in phase, so one step says little.
  double mean_of_last(int count) const {
    double sum = 0;
    for (int i = 1; i <= count; ++i) sum += loss[loss.size() - static_cast<std::size_t>(i)];
    return sum / count;
  }
};

// From W = 0, until the steps are done or the loss is below `enough`.
template <class Rule>
training train(const memory& facts, const Rule& rule, double lr, int steps, double enough = 0, int threads = 1) {
  matrix w = matrix::Zero(facts.items(), facts.items()), g = w;
  matopt::eigen_backend cpu(threads);
  matopt::optimizer<Rule, matopt::eigen_backend, matopt::types<double>> opt(cpu, rule);
  opt.add("w", matopt::view_of(w), matopt::view_of(g));
  opt.finalize();
  training result;
  for (int t = 0;; ++t) {
    const auto now = facts.at(w);
    result.loss.push_back(now.loss), result.tail_to_head.push_back(now.tail_to_head());
    if (t == steps || now.loss < enough) return result;
    g = now.gradient;
    opt.step(lr);
  }
}

// The slope of a line through (x, y) by least squares.
inline double slope(const std::vector<std::pair<double, double>>& points) {
  const auto n = static_cast<double>(points.size());
  double x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [px, py] : points) x += px / n, y += py / n;
  for (const auto& [px, py] : points) xx += (px - x) * (px - x), xy += (px - x) * (py - y);
  return xy / xx;
}

// Gradient descent on the task at a size that no matrix would fit in. From W = 0 each fact keeps one number, by how
// much the right logit leads, because all wrong ones stay equal; so this is the same iteration, not a model of it.
// Returns the loss after 64, 128, ... 4096 steps.
inline std::vector<std::pair<double, double>> descent_at_scale(const task& t, double lr_times_most_frequent) {
  const double k = static_cast<double>(t.items), size = k / static_cast<double>(t.groups);
  const double anything = t.noise / k, right = 1 - t.noise + anything;
  const double entropy = -right * std::log(right) - (anything > 0 ? (k - 1) * anything * std::log(anything) : 0);
  std::vector<double> share, lead(static_cast<std::size_t>(t.groups), 0.0);
  double total = 0;
  for (index_t i = 0; i < t.groups; ++i) total += share.emplace_back(std::pow(static_cast<double>(i + 1), -t.exponent));
  const double lr = lr_times_most_frequent / (share[0] / total / size);
  std::vector<std::pair<double, double>> result;
  for (int step = 0; step <= 4096; ++step) {
    const bool wanted = step >= 64 && (step & (step - 1)) == 0;
    double loss = 0;
    for (std::size_t i = 0; i < lead.size(); ++i) {
      const double e = std::exp(lead[i]), sum = e + k - 1;
      if (wanted) loss += share[i] / total * (std::log(sum) - right * lead[i] - entropy);
      // The right logit moves one way, the K - 1 others the other way, each by its part.
      lead[i] += lr * (share[i] / total / size) * (right - e / sum) * k / (k - 1);
    }
    if (wanted) result.emplace_back(step, loss);
  }
  return result;
}

}  // namespace associative_memory
