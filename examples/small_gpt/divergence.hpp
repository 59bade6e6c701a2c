// When a training counts as diverged, and what it then says.
//
// A loss shows divergence if it is not finite, or more than three nats above ln(vocabulary), the loss of a guess that
// takes every symbol for equally likely: the model then gives the text a probability twenty times lower, per token,
// than that guess does. What is measured so is the smoothed loss of the batches, which forgives a short spike, and each
// validation loss. A training whose last twenty steps were all skipped, because their gradients were not finite, has
// diverged too, and so has one with a rate that the optimizer refuses, such as one that makes weights grow by their
// decay.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

namespace small_gpt {

inline constexpr double nats_above_guess = 3;
inline constexpr int most_skipped_steps = 20;

inline bool shows_divergence(double loss, int vocabulary) {
  return !(loss <= std::log(static_cast<double>(vocabulary)) + nats_above_guess);
}

inline std::string divergence_of(const char* what, double loss, int vocabulary) {
  char text[160];
  std::snprintf(text, sizeof text, "the %s is %.6g nats per token, and a uniform guess has %.4f", what, loss,
                std::log(static_cast<double>(vocabulary)));
  return text;
}

// The mean of the losses of all batches so far, weighted towards the recent ones.
class smoothed_loss {
 public:
  smoothed_loss() = default;
  explicit smoothed_loss(double raw) : raw_(raw) {}  // from a checkpoint
  void add(double loss) { raw_ = keep * raw_ + (1 - keep) * loss; }
  double raw() const { return raw_; }
  double after(int steps) const { return raw_ / (1 - std::pow(keep, steps)); }

 private:
  static constexpr double keep = 0.95;
  double raw_ = 0;
};

}  // namespace small_gpt
