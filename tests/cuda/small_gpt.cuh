// What the tests of small_gpt on the GPU share.
#pragma once
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <matopt/cuda.cuh>
#include <type_traits>
#include <vector>

#include "small_gpt/cuda/training_step.cuh"
#include "small_gpt/model.hpp"

namespace matopt::test::small {

namespace gpu = ::small_gpt::gpu;
using ::small_gpt::architecture;
using ::small_gpt::gpt_config;

struct device {
  cudaStream_t stream = nullptr;
  device() { matopt::cuda::check(cudaStreamCreate(&stream), "create a stream"); }
  device(const device&) = delete;
  device& operator=(const device&) = delete;
  ~device() { cudaStreamDestroy(stream); }
};

inline std::vector<std::int32_t> random_tokens(index_t count, int vocabulary, std::uint64_t seed) {
  ::small_gpt::random_stream random(seed);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}
template <class T>
std::vector<double> random_values(index_t count, std::uint64_t seed) {
  ::small_gpt::random_stream random(seed);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& v : values) v = static_cast<double>(static_cast<T>(static_cast<float>(random.normal())));
  return values;
}

template <class T>
gpu::device_array<T> to_device(const std::vector<double>& values, cudaStream_t stream) {
  gpu::device_array<T> a(static_cast<index_t>(values.size()), stream);
  std::vector<T> narrow(values.size());
  std::transform(values.begin(), values.end(), narrow.begin(), [](double v) { return T(static_cast<float>(v)); });
  matopt::cuda::check(cudaMemcpyAsync(a.data(), narrow.data(), a.bytes(), cudaMemcpyHostToDevice, stream), "upload");
  matopt::cuda::check(cudaStreamSynchronize(stream), "upload");
  return a;
}
template <class T>
std::vector<double> to_host(const gpu::device_array<T>& a, cudaStream_t stream) {
  std::vector<T> narrow(static_cast<std::size_t>(a.size()));
  matopt::cuda::check(cudaMemcpyAsync(narrow.data(), a.data(), a.bytes(), cudaMemcpyDeviceToHost, stream), "download");
  matopt::cuda::check(cudaStreamSynchronize(stream), "download");
  std::vector<double> values(narrow.size());
  std::transform(narrow.begin(), narrow.end(), values.begin(), [](T v) { return static_cast<double>(v); });
  return values;
}

struct error {
  double norm, largest;  // of the difference, relative to that of the expected values
};
inline error error_of(const double* is, const double* expected, index_t count) {
  double difference = 0, squares = 0, most = 0, largest = 0;
  for (index_t i = 0; i < count; ++i) {
    const double d = is[i] - expected[i];
    if (!std::isfinite(d)) return {INFINITY, INFINITY};
    difference += d * d, squares += expected[i] * expected[i];
    most = std::max(most, std::abs(d)), largest = std::max(largest, std::abs(expected[i]));
  }
  return {std::sqrt(difference / squares), most / largest};
}
inline error error_of(const std::vector<double>& is, const std::vector<double>& expected) {
  REQUIRE(is.size() == expected.size());
  return error_of(is.data(), expected.data(), static_cast<index_t>(is.size()));
}

template <class T>
constexpr bool is_float = std::is_same_v<T, float>;
template <class T>
const char* name_of() {
  return is_float<T> ? "float" : "bf16";
}

// Compiled with SMALL_GPT_SHOW, the tests say how large the errors are.
#ifdef SMALL_GPT_SHOW
#define SHOW(...) (std::printf(__VA_ARGS__), std::fflush(stdout))
#else
#define SHOW(...) ((void)0)
#endif

}  // namespace matopt::test::small
