// Attention of examples/small_gpt on the GPU against that on the CPU in double, which has the matrix of probabilities.
#include "small_gpt.cuh"

using namespace matopt::test::small;
using matopt::bfloat16;
using matopt::index_t;

namespace {

template <class T>
void attention_is_as_on_the_cpu(index_t sequences, index_t length, int heads, int head_width) {
  device d;
  CAPTURE(name_of<T>(), sequences, length, heads, head_width);
  const index_t w = index_t{heads} * head_width, rows = sequences * length;
  const std::vector<double> qkv = random_values<T>(rows * 3 * w, 1), dy = random_values<T>(rows * w, 2);
  std::vector<double> probability(static_cast<std::size_t>(sequences * heads * length * length)),
      scratch(static_cast<std::size_t>(length * length)), y(static_cast<std::size_t>(rows * w)),
      dqkv(static_cast<std::size_t>(rows * 3 * w));
  const small_gpt::attention_shape shape{sequences, length, heads, head_width};
  small_gpt::attention_forward(shape, qkv.data(), probability.data(), y.data());
  std::vector<double> largest(static_cast<std::size_t>(heads), -INFINITY);
  small_gpt::attention_forward(shape, qkv.data(), probability.data(), y.data(), largest.data());
  small_gpt::attention_backward(shape, qkv.data(), probability.data(), dy.data(), scratch.data(), dqkv.data());

  const gpu::attention_shape a{sequences, length, heads, head_width};
  const auto in = to_device<T>(qkv, d.stream), d_out = to_device<T>(dy, d.stream);
  const std::vector<double> poison(dqkv.size(), NAN);
  auto d_in = to_device<T>(poison, d.stream);
  auto out = to_device<T>(std::vector<double>(y.size(), NAN), d.stream);
  gpu::device_array<float> log_sum(rows * heads, d.stream), delta(rows * heads, d.stream);
  gpu::attention_forward<T>(d.stream, a, in.data(), out.data(), log_sum.data());
  gpu::attention_backward<T>(d.stream, a, in.data(), out.data(), d_out.data(), log_sum.data(), delta.data(),
                             d_in.data());
  const error forward = error_of(to_host(out, d.stream), y);
  // Measuring the largest logits changes nothing else; products of bfloat16 are exact in float.
  gpu::device_array<float> tops(heads, d.stream);
  gpu::nothing_yet(d.stream, tops.data(), heads);
  const std::vector<double> unmeasured = to_host(out, d.stream), nothing = to_host(tops, d.stream);
  CHECK(std::all_of(nothing.begin(), nothing.end(), [](double x) { return std::isnan(x); }));
  gpu::attention_forward<T>(d.stream, a, in.data(), out.data(), log_sum.data(), tops.data());
  CHECK(to_host(out, d.stream) == unmeasured);
  const std::vector<double> measured = to_host(tops, d.stream);
  for (std::size_t h = 0; h < largest.size(); ++h) {
    SHOW("largest logit %s n %ld head %zu: %.8g, %.8g\n", name_of<T>(), (long)length, h, measured[h], largest[h]);
    CHECK(std::abs(measured[h] - largest[h]) < 1e-5 * (1 + std::abs(largest[h])));
  }
  const std::vector<double> gradient = to_host(d_in, d.stream);
  const double tolerance = is_float<T> ? 1e-5 : 1e-2;
  CHECK(forward.norm < tolerance);
  // q, k and v apart: that of v is the largest
  for (index_t part = 0; part < 3; ++part) {
    std::vector<double> is, expected;
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < w; ++c) {
        const auto i = static_cast<std::size_t>(r * 3 * w + part * w + c);
        is.push_back(gradient[i]), expected.push_back(dqkv[i]);
      }
    if (length == 1 && part < 2) {  // of one column the probability is 1, whatever q and k are
      CHECK(std::all_of(is.begin(), is.end(), [](double x) { return std::abs(x) < (is_float<T> ? 1e-4 : 0.1); }));
      continue;
    }
    const error e = error_of(is, expected);
    CAPTURE(part);
    SHOW("attention %s b %ld n %ld h %d d %d part %ld: %.2e (y %.2e)\n", name_of<T>(), (long)sequences, (long)length,
         heads, head_width, (long)part, e.norm, forward.norm);
    CHECK(e.norm < 2 * tolerance);
  }
}

}  // namespace

TEST_CASE("GPU small_gpt: attention in float is as on the CPU", "[cuda][small_gpt]") {
  for (const index_t length : {1, 2, 31, 32, 33, 65, 150}) attention_is_as_on_the_cpu<float>(2, length, 3, 7);
  for (const int width : {32, 40, 64, 96, 130, 256}) attention_is_as_on_the_cpu<float>(1, 70, 2, width);
}
TEST_CASE("GPU small_gpt: attention in bf16 is as on the CPU", "[cuda][small_gpt]") {
  for (const index_t length : {1, 2, 63, 64, 65, 127, 128, 129, 200, 321})
    attention_is_as_on_the_cpu<bfloat16>(2, length, 3, 64);
  for (const int width : {8, 16, 32, 40, 64, 96, 128}) attention_is_as_on_the_cpu<bfloat16>(1, 150, 2, width);
}
TEST_CASE("GPU small_gpt: the largest of numbers of either sign", "[cuda][small_gpt]") {
  device d;
  // One head of one token: its only logit is q k, of any sign; and a maximum goes on from sequence to sequence.
  gpu::device_array<float> y(1, d.stream), log_sum(1, d.stream), top(1, d.stream);
  for (const std::vector<double>& logits :
       {std::vector<double>{-2, -3, -1}, {-1, -0.0}, {-0.0, -1}, {3, -5, 4, 2}, {-1e30, -1e-30}, {1, INFINITY, 2}}) {
    gpu::nothing_yet(d.stream, top.data(), 1);
    double expected = -INFINITY;
    for (const double x : logits) {
      const auto qkv = to_device<float>({x, 1, 1}, d.stream);
      gpu::attention_forward<float>(d.stream, {1, 1, 1, 1}, qkv.data(), y.data(), log_sum.data(), top.data());
      expected = std::max(expected, x);
      CHECK(to_host(top, d.stream).front() == Approx(expected).epsilon(1e-6));
    }
  }
}
TEST_CASE("GPU small_gpt: heads without a kernel are refused", "[cuda][small_gpt]") {
  device d;
  CHECK_THROWS_AS(gpu::gpu_gpt<bfloat16>({.layers = 1, .heads = 1, .width = 12}, 1, d.stream), matopt::bad_value);
  CHECK_THROWS_AS(gpu::gpu_gpt<bfloat16>({.layers = 1, .heads = 1, .width = 136}, 1, d.stream), matopt::bad_value);
  CHECK_THROWS_AS(gpu::gpu_gpt<float>({.layers = 1, .heads = 1, .width = 258}, 1, d.stream), matopt::bad_value);
}
