// Weights of 16 bits with masters, and state of 16 bits: the same bits as on the CPU, rounded to nearest and
// stochastically.
#include <catch2/catch.hpp>

#include <cmath>
#include <matopt/cuda/captured_step.cuh>
#include <matopt/eigen.hpp>
#include <matopt/engine/any_optimizer.hpp>
#include <matopt/lion.hpp>
#include <matopt/policy/constraint/master_weights.hpp>

#include "device.cuh"

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
std::vector<std::uint16_t> bits_of(view<const T> v) {
  std::vector<std::uint16_t> out;
  // A GPU makes another NaN of a NaN in float16 than the CPU does.
  for (const T& x : elements(v)) out.push_back(std::isnan(static_cast<float>(x)) ? 0x7fffU : x.bits);
  return out;
}
template <class T>
bool differ(const std::vector<T>& a, const std::vector<T>& b) {
  return !same_bits(a, b);
}

}  // namespace

TEMPLATE_TEST_CASE("GPU: masters are rounded to the same bits as on the CPU", "[cuda]", bfloat16, float16) {
  using W = TestType;
  constexpr index_t m = 131, n = 67;
  // Bit patterns of every kind: ties, carries into the next exponent, denormals, infinities, NaN, the largest floats.
  const auto pattern = [](index_t i, index_t j) {
    const std::uint32_t upper[] = {0x3f80, 0x3f81, 0xbfff, 0x0000, 0x8001, 0x007f,
                                   0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x0080};
    const std::uint32_t lower[] = {0x0000, 0x8000, 0x7fff, 0x8001, 0xffff, 0x0001, 0x4000};
    const auto k = static_cast<std::uint32_t>(i * n + j);
    const std::uint32_t x = k % 3 ? k * 2654435761U : (upper[k / 3 % 12] << 16) + lower[k / 36 % 7];
    return (x & 0x7f800000U) == 0x7f800000U && (x & 0x007fffffU) != 0 ? 0x7fc00000U : x;  // one NaN: its bits may vary
  };
  stream s;
  cuda_backend gpu(s.s);
  eigen_backend cpu(1);
  for (const layout l : all_layouts) {
    CAPTURE(name_of(l));
    on_device<float> master(gpu, m, n, l);
    on_device<W> w(gpu, m, n, l);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) master.host.v()(i, j) = std::bit_cast<float>(pattern(i, j));
    master.up(), w.up();
    stored<W> expected(m, n, l);
    const auto compare = [&](auto f, auto... more) {
      gpu.for_each(nullptr, f, w.v(), master.cv(), more...);
      w.down();
    };
    compare(fn::assign{});
    cpu.for_each(nullptr, fn::assign{}, expected.v(), master.host.cv());
    const auto nearest = bits_of(expected.cv());
    CHECK(same_bits(bits_of(w.host.cv()), nearest));
    std::vector<std::uint16_t> last = nearest;
    for (const float step : {1.0F, 2.0F, 16777216.0F})
      for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{9007199254740991}}) {
        CAPTURE(step, seed);
        on_device<float> number(gpu, 1, 1);
        number.host.v()(0, 0) = step, number.up();
        const fn::round_stochastically<W> f{seed};
        compare(f, row_number{}, column_number{}, per_matrix(number.cv()));
        cpu.for_each(nullptr, f, expected.v(), master.host.cv(), row_number{}, column_number{},
                     per_matrix(number.host.cv()));
        CHECK(same_bits(bits_of(w.host.cv()), bits_of(expected.cv())));
        CHECK(differ(bits_of(w.host.cv()), last));  // from the rounding to nearest, and from the one before
        last = bits_of(w.host.cv());
      }
    CHECK(w.host.intact());
  }
}

namespace {

// Lion with weights of a half: every product is exact, so a multiply-add gives the bits that two operations do.
auto exact_lion(rounding_mode mode) {
  lion::with_constraint<master_weights<>> rule;
  rule.momentum.beta1 = rule.momentum.beta2 = 0.5;
  rule.constraint.rounding = mode, rule.constraint.rounding_seed = 17;
  return rule;
}

}  // namespace

TEMPLATE_TEST_CASE("GPU: steps with masters give the weights and masters of the CPU, bit for bit", "[cuda]", bfloat16,
                   float16) {
  using W = TestType;
  using mixed = types<W, W, float>;
  constexpr index_t m = 24, n = 41, batch = 3;
  for (const auto mode : {rounding_mode::nearest, rounding_mode::stochastic}) {
    CAPTURE(static_cast<int>(mode));
    stream s;
    cuda_backend gpu(s.s);
    eigen_backend cpu(1);
    on_device<W> w(gpu, m, n, layout::row_major, batch), g(gpu, m, n, layout::row_major, batch);
    stored<W> w2(m, n, layout::row_major, batch);
    w.host.fill_random(1, 0.5), w.up(), w2.fill_random(1, 0.5);
    any_optimizer<cuda_backend, mixed> on_gpu(gpu, exact_lion(mode));
    any_optimizer<eigen_backend, mixed> on_cpu(cpu, exact_lion(mode));
    on_gpu.add("w", w.v(), g.cv()), on_cpu.add("w", w2.v(), g.host.cv());
    on_gpu.finalize(), on_cpu.finalize();
    const auto before = bits_of(w2.cv());
    for (std::uint64_t t = 0; t < 8; ++t) {
      g.host.fill_random(5 + t), g.up();
      on_gpu.step(0.0007), on_cpu.step(0.0007);  // less than half a unit in the last place of most weights
      w.down();
      CHECK(same_bits(bits_of(w.host.cv()), bits_of(w2.cv())));
    }
    CHECK(differ(before, bits_of(w2.cv())));
    const auto theirs = on_gpu.state_tensors(), ours = on_cpu.state_tensors();
    REQUIRE(theirs.size() == ours.size());
    bool has_master = false;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      has_master |= ours[i].name == "w.0.master";
      CHECK(theirs[i].name == ours[i].name);
      const auto size = static_cast<std::size_t>(ours[i].rows * ours[i].cols) * size_of(ours[i].type);
      std::vector<std::byte> a(size), b(size);
      on_gpu.read_state(theirs[i], a.data()), on_cpu.read_state(ours[i], b.data());
      CHECK(same_bits(a, b));
    }
    CHECK(has_master);
  }
}

TEMPLATE_TEST_CASE("GPU: state that is rounded stochastically has the bits of the CPU, eager and recorded", "[cuda]",
                   bfloat16, float16) {
  using chancy = types<float, float, stochastic<TestType>>;
  constexpr index_t m = 24, n = 41, batch = 3;
  lion rule;
  rule.momentum.beta1 = rule.momentum.beta2 = 0.5;
  for (const bool recorded : {false, true}) {
    CAPTURE(recorded);
    stream s;
    cuda_backend gpu(s.s);
    eigen_backend cpu(2);
    on_device<float> w(gpu, m, n, layout::row_major, batch), g(gpu, m, n, layout::row_major, batch);
    stored<float> w2(m, n, layout::row_major, batch);
    w.host.fill_random(1, 0.5), w.up(), w2.fill_random(1, 0.5);
    any_optimizer<cuda_backend, chancy> on_gpu(gpu, rule);
    any_optimizer<eigen_backend, chancy> on_cpu(cpu, rule);
    on_gpu.add("w", w.v(), g.cv()), on_cpu.add("w", w2.v(), g.host.cv());
    on_gpu.finalize(), on_cpu.finalize();
    cuda::captured_step fast(on_gpu);
    for (std::uint64_t t = 0; t < 8; ++t) {
      g.host.fill_random(5 + t), g.up();
      recorded ? fast.step(0.0625) : on_gpu.step(0.0625);
      on_cpu.step(0.0625);
    }
    w.down();
    CHECK(same_bits(elements(w.host.cv()), elements(w2.cv())));
    const auto theirs = on_gpu.state_tensors(), ours = on_cpu.state_tensors();
    REQUIRE(theirs.size() == ours.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const auto size = static_cast<std::size_t>(ours[i].rows * ours[i].cols) * size_of(ours[i].type);
      std::vector<std::byte> a(size), b(size);
      on_gpu.read_state(theirs[i], a.data()), on_cpu.read_state(ours[i], b.data());
      CHECK(same_bits(a, b));
    }
  }
}
