// The task: K facts, each a pair of an input and an output, in one matrix W. Facts come in groups of K / M that are
// asked for equally often; the groups' frequencies fall like a power law. Asked for input j, the model answers
//
//   P(i | j) = softmax over i of <output_i, W input_j>
//
// and the data answer j, or, with probability `noise`, any of the K outputs. The loss is the cross entropy less its
// smallest possible value, so that 0 is perfect with noise, too. The setting of "Muon in Associative Memory Learning",
// arXiv 2602.05725.
#pragma once
#include <Eigen/Core>
#include <Eigen/QR>
#include <cmath>
#include <cstdint>
#include <matopt/core/error.hpp>
#include <matopt/core/index.hpp>
#include <matopt/core/philox.hpp>
#include <string>

namespace associative_memory {

using matrix = Eigen::MatrixXd;
using vector = Eigen::VectorXd;
using matopt::index_t;

struct task {
  index_t items = 128, groups = 8;
  double exponent = 1.5;  // group i has a share of the questions proportional to (i + 1)^-exponent
  double noise = 0;
  std::uint64_t seed = 1;
};

// The orthogonal factor of a Gaussian matrix.
inline matrix random_rotation(index_t n, std::uint64_t seed, std::uint32_t stream) {
  matrix gaussian(n, n);
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < n; ++i)
      gaussian(i, j) = matopt::philox::normal(seed, stream, 0, static_cast<std::uint64_t>(i + j * n));
  return Eigen::HouseholderQR<matrix>(gaussian).householderQ();
}

class memory {
 public:
  explicit memory(const task& t) : task_(t) {
    if (t.groups < 1) throw matopt::bad_value("groups", std::to_string(t.groups), "1 or more");
    if (t.items < 2 || t.items % t.groups != 0)
      throw matopt::bad_value("items", std::to_string(t.items), "a multiple of the number of groups, 2 or more");
    if (!(t.noise >= 0 && t.noise < 1)) throw matopt::bad_value("noise", std::to_string(t.noise), "in [0, 1)");
    if (!(t.exponent >= 0)) throw matopt::bad_value("exponent", std::to_string(t.exponent), ">= 0");
    inputs_ = random_rotation(t.items, t.seed, 0);
    outputs_ = random_rotation(t.items, t.seed, 1);
    frequency_.resize(t.items);
    for (index_t j = 0; j < t.items; ++j)
      frequency_(j) = std::pow(static_cast<double>(j / group_size() + 1), -t.exponent);
    frequency_ /= frequency_.sum();
  }

  index_t items() const { return task_.items; }
  index_t groups() const { return task_.groups; }
  index_t group_size() const { return task_.items / task_.groups; }
  double most_frequent() const { return frequency_(0); }
  const matrix& inputs() const { return inputs_; }    // column j is the embedding of input j
  const matrix& outputs() const { return outputs_; }  // column i is the embedding of output i

  struct evaluation {
    double loss = 0;
    vector group_loss;  // mean over the facts of a group
    matrix gradient;    // of the loss, at W

    // How far the rarest facts are behind the most frequent ones.
    double tail_to_head() const { return group_loss(group_loss.size() - 1) / group_loss(0); }
  };
  evaluation at(const matrix& w) const {
    const double k = static_cast<double>(task_.items), anything = task_.noise / k, right = 1 - task_.noise + anything;
    const double entropy = -right * std::log(right) - (anything > 0 ? (k - 1) * anything * std::log(anything) : 0);
    evaluation e;
    e.group_loss = vector::Zero(task_.groups);
    matrix z = outputs_.transpose() * w * inputs_;  // becomes the loss's derivative by it
    for (index_t j = 0; j < task_.items; ++j) {
      auto column = z.col(j);
      const double mean_target = (1 - task_.noise) * column(j) + task_.noise * column.mean(), top = column.maxCoeff();
      column = (column.array() - top).exp();
      const double sum = column.sum(), loss = top + std::log(sum) - mean_target - entropy;
      e.loss += frequency_(j) * loss;
      e.group_loss(j / group_size()) += loss / static_cast<double>(group_size());
      column = frequency_(j) * (column.array() / sum - anything);
      column(j) -= frequency_(j) * (1 - task_.noise);
    }
    e.gradient = outputs_ * z * inputs_.transpose();
    return e;
  }

 private:
  task task_;
  matrix inputs_, outputs_;
  vector frequency_;
};

}  // namespace associative_memory
