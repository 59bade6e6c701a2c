// Counter-based random numbers: draw i of stream (seed, stream) is mix(key + i * golden), the SplitMix64 generator of
// Steele, Lea and Flood (2014). The whole state is two integers, and batch t of a run needs no state at all: its stream
// is (seed, t). std::normal_distribution is not used because its values differ between standard libraries.
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>

namespace small_gpt {

class random_stream {
 public:
  explicit random_stream(std::uint64_t seed, std::uint64_t stream = 0)
      : key_(mix(mix(seed + golden) ^ mix(stream + golden * 2))) {}

  std::uint64_t bits() { return mix(key_ + golden * ++counter_); }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  // Uniform in {0, ..., n - 1}; the bias of n / 2^64 is far below anything a run can see.
  std::uint64_t below(std::uint64_t n) { return bits() % n; }
  // Standard normal by Box and Muller; the second value of the pair is dropped to keep the state a plain counter.
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  std::uint64_t counter() const { return counter_; }
  void seek(std::uint64_t counter) { counter_ = counter; }

 private:
  static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15U;
  static constexpr std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

}  // namespace small_gpt
