// Codes of 8 bits: the stand-alone verbs, momentum that is kept in them, and what checkpoints do with it.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <matopt/adamw.hpp>
#include <matopt/adapnm.hpp>
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>
#include <matopt/mars_m.hpp>
#include <matopt/muon_8bit.hpp>
#include <matopt/namo.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/quantize.hpp>
#include <matopt/soap.hpp>
#include <matopt/state_conversion.hpp>
#include <matopt/state_io.hpp>
#include <string>
#include <vector>

#include "../support/stepper.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

double distance(const mat& x, const mat& y) { return largest(x - y); }

constexpr code_map all_maps[] = {code_map::linear, code_map::dynamic, code_map::e4m3};

template <class T>
struct coded {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
  std::vector<T> values;
};
template <class T>
coded<T> round_trip(const std::vector<T>& x, const block_format& f, int threads = 1) {
  eigen_backend cpu(threads);
  const auto n = static_cast<index_t>(x.size());
  coded<T> out{std::vector<std::uint8_t>(x.size()), std::vector<float>(static_cast<std::size_t>(f.blocks(n))),
               std::vector<T>(x.size())};
  const auto codes = row_major(out.codes.data(), 1, n);
  const auto scales = row_major(out.scales.data(), 1, f.blocks(n));
  quantize(cpu, row_major(x.data(), 1, n), codes, scales, f);
  dequantize(cpu, codes, scales, row_major(out.values.data(), 1, n), f);
  return out;
}
template <class T>
std::vector<T> noise(std::size_t count, double size = 1) {
  const mat m = random_mat(1, static_cast<index_t>(count), 7);
  std::vector<T> x;
  for (index_t j = 0; j < m.cols; ++j) x.push_back(static_cast<T>(size * m(0, j)));
  return x;
}
// The largest error that a map allows for x in a block of scale s.
double bound(code_map map, double x, double s) {
  const double size = std::abs(x);
  if (map == code_map::linear) return s / 254;
  if (map == code_map::e4m3) return std::max(size / 16, s * 0x1p-10 / 448);
  const double by_decade[] = {0.00704, 0.00141, 2.8e-4, 5.6e-5, 1.13e-5, 2.3e-6};
  for (int i = 0; i < 6; ++i)
    if (size >= s * std::pow(10, -1 - i)) return s * by_decade[i];
  return s * by_decade[5];
}

}  // namespace

TEMPLATE_TEST_CASE("codes are within their bounds, and linear and e4m3 ones stay", "[quantized]", float, double) {
  using T = TestType;
  for (const code_map map : all_maps)
    for (const index_t block : {1, 3, 8, 256, 5000})
      for (const double size : {1.0, 1e-30, 1e30}) {
        CAPTURE(static_cast<int>(map), block, size);
        const block_format f{map, block};
        const auto x = noise<T>(700, size);
        const auto y = round_trip(x, f);
        std::size_t off = 0, smaller = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double s = y.scales[i / static_cast<std::size_t>(block)], error = std::abs(double(y.values[i]) - x[i]);
          off += !(error <= bound(map, x[i], s) * (1 + 1e-5));
          smaller += !(s >= std::abs(double(x[i])));
        }
        CHECK(off == 0);
        CHECK(smaller == 0);
        auto negative = x;
        for (T& v : negative) v = -v;
        const auto back = round_trip(y.values, f), mirrored = round_trip(negative, f);
        if (map == code_map::dynamic) continue;
        CHECK(back.codes == y.codes);
        CHECK(back.scales == y.scales);
        for (std::size_t i = 0; i < x.size(); ++i) CHECK(mirrored.values[i] == -y.values[i]);
        CHECK(round_trip(x, f, 4).codes == y.codes);
      }
}

TEST_CASE("a scale is rounded up to a float, and blocks of zeros are zeros", "[quantized]") {
  const double third = 1.0 / 3;
  const auto y = round_trip<double>({third, 0, 0, 0, 1e-60, 0}, {code_map::linear, 2});
  CHECK(double(y.scales[0]) > third);
  CHECK(double(std::nextafter(y.scales[0], 0.F)) < third);
  CHECK(y.scales[1] == 0);
  CHECK(y.scales[2] == std::numeric_limits<float>::denorm_min());
  for (const code_map map : all_maps) {
    const auto zero = round_trip<float>(std::vector<float>(9), {map, 4});
    for (const float v : zero.values) CHECK(std::memcmp(&v, "\0\0\0\0", 4) == 0);  // not -0
  }
}

TEST_CASE("what is not finite does not spread in a block", "[quantized]") {
  const float inf = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  for (const code_map map : all_maps) {
    CAPTURE(static_cast<int>(map));
    const auto y = round_trip<float>({1, std::nanf(""), -2, 4, inf, 3}, {map, 4});
    CHECK(y.scales[0] == 4);
    CHECK(y.values[1] == 0);
    CHECK(y.values[3] == 4);
    CHECK(y.scales[1] == most);
    CHECK(y.values[4] == most);
  }
}

TEST_CASE("ties go to the even code, and the largest floats do not overflow", "[quantized]") {
  const auto codes = [](const std::vector<float>& x, code_map map) { return round_trip(x, {map, 256}).codes; };
  for (const float unit : {1.F, 0x1p-100F, 0x1p120F}) {
    std::vector<float> x{127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5};
    for (float& v : x) v *= unit;
    CHECK(codes(x, code_map::linear) == std::vector<std::uint8_t>{127, 0, 2, 2, 0, 254, 130, 126});
    x = {448, 432, 464, 17, -19, 0x1p-10F, 0x3p-10F, -0x1p-9F, -0x1p-12F};
    x[2] = 416;
    for (float& v : x) v *= unit / 2;
    CHECK(codes(x, code_map::e4m3) == std::vector<std::uint8_t>{0x7e, 0x7e, 0x7d, 0x58, 0xda, 0, 2, 0x81, 0});
  }
}

TEST_CASE("blocks run through a matrix row after row, whatever its strides", "[quantized]") {
  eigen_backend cpu(1);
  const auto x = noise<float>(2 * 35);
  std::vector<float> turned(x.size());
  for (index_t b = 0; b < 2; ++b)
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 7; ++j)
        turned[static_cast<std::size_t>(b * 35 + j * 5 + i)] = x[static_cast<std::size_t>(b * 35 + i * 7 + j)];
  for (const code_map map : all_maps) {
    const block_format f{map, 8};
    std::vector<std::uint8_t> a(70), c(70);
    std::vector<float> s(10), t(10), back(70);
    const auto scales = [](std::vector<float>& v) { return row_major(v.data(), 1, 5, 2); };
    quantize(cpu, row_major(x.data(), 5, 7, 2), row_major(a.data(), 5, 7, 2), scales(s), f);
    quantize(cpu, col_major(turned.data(), 5, 7, 2), col_major(c.data(), 5, 7, 2), scales(t), f);
    CHECK(s == t);
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 7; ++j)
        CHECK(a[static_cast<std::size_t>(35 + i * 7 + j)] == c[static_cast<std::size_t>(35 + j * 5 + i)]);
    // The same as a line, and a view into a larger matrix.
    const auto line = round_trip(std::vector<float>(x.begin() + 35, x.end()), f);
    CHECK(line.codes == std::vector<std::uint8_t>(a.begin() + 35, a.end()));
    dequantize(cpu, col_major(c.data(), 5, 7, 2), scales(t), row_major(back.data(), 5, 7, 2), f);
    CHECK(std::vector<float>(back.begin() + 35, back.end()) == line.values);
  }
}

TEST_CASE("quantize refuses what does not fit", "[quantized]") {
  eigen_backend cpu(1);
  std::vector<float> x(12), s(4);
  std::vector<std::uint8_t> c(12);
  const auto m = row_major(x.data(), 3, 4);
  CHECK_THROWS_WITH(quantize(cpu, m, row_major(c.data(), 3, 4), row_major(s.data(), 1, 1), {.block = 0}),
                    Catch::Contains("block is 0"));
  CHECK_THROWS_WITH(quantize(cpu, m, row_major(c.data(), 4, 3), row_major(s.data(), 1, 1)), Catch::Contains("codes"));
  CHECK_THROWS_WITH(dequantize(cpu, row_major(c.data(), 3, 4), row_major(s.data(), 1, 2), m, {.block = 5}),
                    Catch::Contains("1x3"));
}

// Of what begins at zero nothing is rounded before the first update; after it, the state is what its codes say.
TEMPLATE_TEST_CASE("any momentum that keeps a matrix can be kept in 8 bits", "[quantized]", muon, adamw, lion, mars_m,
                   namo, adapnm, soap) {
  using small = with_8bit_momentum<TestType>;
  TestType plain;
  if constexpr (requires { plain.momentum.frequency; }) plain.momentum.frequency = 2;
  small coded;
  coded.momentum.inner = plain.momentum;
  const mat w0 = random_mat(9, 6, 1);
  stepper<TestType> a(plain, w0);
  stepper<small> b(coded, w0);
  const double lr = 0.01;
  for (int t = 0; t < 6; ++t) {
    const mat g = random_mat(9, 6, static_cast<std::uint64_t>(10 + t));
    const mat x = a.step(g, lr), y = b.step(g, lr);
    if (t == 0) CHECK(distance(x, y) == 0);
    CHECK(distance(x, y) < 0.1 * lr * (t + 1) * 10);
  }
  CHECK(distance(a.weight(), w0) > 0);
  if (!std::is_same_v<TestType, lion>) CHECK(distance(a.weight(), b.weight()) > 0);  // signs hide it
  CHECK(small::name() == TestType::name());
}

TEST_CASE("the update takes the momentum before it is rounded", "[quantized]") {
  // With one step more, only what is kept differs: the second update is that of a float rule on the dequantized state.
  const mat w0 = random_mat(5, 4, 1), g1 = random_mat(5, 4, 2), g2 = random_mat(5, 4, 3);
  for (const code_map map : all_maps) {
    muon_8bit rule;
    rule.momentum.map = map, rule.momentum.block = 6;
    stepper<muon_8bit> s(rule, w0);
    s.step(g1, 0.1);
    std::vector<double> m;
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 4; ++j) m.push_back(0.05 * g1(i, j));
    const auto kept = round_trip(m, {map, 6});
    stepper<muon> f({}, s.weight());
    const auto buffer = f.state("momentum");
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 4; ++j) buffer(i, j) = kept.values[static_cast<std::size_t>(i * 4 + j)];
    CHECK(distance(s.step(g2, 0.1), f.step(g2, 0.1)) < 1e-14);
  }
}

TEST_CASE("8-bit state takes a byte per parameter and four bytes per block", "[quantized]") {
  eigen_backend cpu(1);
  std::vector<float> w(512 * 256), g(w.size());
  const auto bytes = [&](auto rule) {
    optimizer<decltype(rule), eigen_backend> opt(cpu, rule);
    opt.add("w", row_major(w.data(), 512, 256), row_major(static_cast<const float*>(g.data()), 512, 256));
    std::size_t sum = 0;
    for (const auto& line : opt.memory().state) sum += line.bytes;
    return sum;
  };
  CHECK(bytes(muon{}) == w.size() * 4);
  CHECK(bytes(muon_8bit{}) == w.size() + w.size() / 64);
  // The second moment divides and stays.
  CHECK(bytes(with_8bit_momentum<adamw>{}) == bytes(adamw{}) - w.size() * 3 + w.size() / 64);
}

TEST_CASE("a step that is skipped or left out leaves codes and scales as they are", "[quantized]") {
  eigen_backend cpu(1);
  for (const code_map map : all_maps) {
    muon_8bit rule;
    rule.momentum.map = map, rule.momentum.block = 5;
    optimizer<muon_8bit, eigen_backend> opt(cpu, rule);
    std::vector<float> w(2 * 24, 0.5F), g = noise<float>(2 * 24);
    for (const index_t k : {0, 1})
      opt.add("w" + std::to_string(k), row_major(w.data() + k * 24, 6, 4),
              row_major(static_cast<const float*>(g.data()) + k * 24, 6, 4));
    opt.finalize();
    opt.step(0.1);
    const auto all = [&] {
      std::vector<std::vector<std::byte>> out;
      for (const auto& t : opt.state_tensors()) {
        out.emplace_back(bytes_of(t));
        opt.read_state(t, out.back().data());
      }
      return out;
    };
    const auto before = all();
    g[30] = std::nanf("");
    opt.step(0.1);
    CHECK(all() == before);
    CHECK(!opt.poll_status());
    g[30] = 1, g[3] = 5;
    opt.leave_out({"w1"});
    opt.step(0.1);
    const auto after = all();
    REQUIRE(after.size() == 4);
    for (const std::size_t i : {0U, 1U}) CHECK(after[i] != before[i]);
    for (const std::size_t i : {2U, 3U}) CHECK(after[i] == before[i]);
    opt.resync();
    CHECK(all() == after);
  }
}

TEST_CASE("in double, what a float scale cannot hold counts as the largest float", "[quantized]") {
  stepper<muon_8bit> s({}, random_mat(3, 3, 1));
  mat g = random_mat(3, 3, 2);
  g(1, 1) = 1e45;
  CHECK(std::isfinite(largest(s.step(g, 0.1))));
  CHECK(s.optimizer().poll_status());
  std::vector<double> m(9);
  get_momentum(s.optimizer(), "w", row_major(m.data(), 3, 3), momentum_form::mean);
  CHECK(m[4] == static_cast<double>(std::numeric_limits<float>::max()));
  CHECK(m[0] == 0);
  CHECK(std::isfinite(largest(s.step(random_mat(3, 3, 3), 0.1))));
}

namespace {
template <class Rule>
struct run {
  eigen_backend cpu{1};
  std::vector<double> w = noise<double>(20), g = noise<double>(20);
  optimizer<Rule, eigen_backend, types<double>> opt;
  explicit run(const Rule& rule) : opt(cpu, rule) {
    opt.add("w", row_major(w.data(), 5, 4), row_major(static_cast<const double*>(g.data()), 5, 4));
    opt.finalize();
  }
  std::vector<double> momentum() {
    std::vector<double> m(20);
    get_momentum(opt, "w", row_major(m.data(), 5, 4), momentum_form::mean);
    return m;
  }
};
muon_8bit coded_muon(code_map map, index_t block) {
  muon_8bit r;
  r.momentum.map = map, r.momentum.block = block;
  return r;
}
}  // namespace

TEST_CASE("checkpoints hold codes as they are, and refuse another format", "[quantized]") {
  for (const code_map map : all_maps) {
    run<muon_8bit> a(coded_muon(map, 8)), b(coded_muon(map, 8));
    for (int t = 0; t < 3; ++t) a.opt.step(0.1);
    tensor_file file;
    store_state(a.opt, file);
    CHECK(file.tensors.at("optimizer.w.momentum").type == element_type_of(map));
    CHECK(restore_state(b.opt, file).everything());
    tensor_file again;
    store_state(b.opt, again);
    for (const auto& [name, t] : file.tensors) CHECK(again.tensors.at(name).data == t.data);
    b.w = a.w;
    a.opt.step(0.1), b.opt.step(0.1);
    CHECK(a.w == b.w);
    for (const code_map other : all_maps) {
      if (other == map) continue;
      run<muon_8bit> c(coded_muon(other, 8));
      CHECK_THROWS_WITH(restore_state(c.opt, file), Catch::Contains("momentum_map"));
      CHECK_THROWS_WITH(restore_state(c.opt, file, {.other_settings = true}),
                        Catch::Contains("w.momentum: file " + std::string(name_of(element_type_of(map)))));
    }
    run<muon_8bit> c(coded_muon(map, 9));
    CHECK_THROWS_WITH(restore_state(c.opt, file, {.other_settings = true}), Catch::Contains("w.momentum_absmax_9"));
    run<muon> plain({});
    CHECK_THROWS_WITH(restore_state(plain.opt, file, {.other_settings = true}), Catch::Contains("w.momentum: file"));
  }
}

TEST_CASE("state in 8 bits is converted on request, from and to any format", "[quantized]") {
  run<muon> plain({});
  for (int t = 0; t < 3; ++t) plain.opt.step(0.1);
  const auto m = plain.momentum();
  tensor_file file;
  store_state(plain.opt, file);
  for (const bool partial : {false, true})
    for (const code_map map : all_maps) {
      CAPTURE(static_cast<int>(map), partial);
      const restore_options o{.other_settings = true, .convert = !partial, .partial = partial};
      run<muon_8bit> a(coded_muon(map, 8));
      const auto report = restore_state(a.opt, file, o);
      CHECK(report.everything());
      REQUIRE(report.converted.size() == 1);
      CHECK(report.converted[0].file == "F64");
      CHECK(report.converted[0].here == std::string(name_of(element_type_of(map))) + " in blocks of 8");
      CHECK(a.momentum() == round_trip(m, {map, 8}).values);
      tensor_file coded;
      store_state(a.opt, coded);
      run<muon> back({});
      CHECK(restore_state(back.opt, coded, o).everything());
      CHECK(back.momentum() == a.momentum());
      for (const code_map other : all_maps)
        for (const index_t block : {7, 8}) {
          run<muon_8bit> c(coded_muon(other, block));
          CHECK(restore_state(c.opt, coded, o).everything());
          if (other != map || block != 8) CHECK(c.momentum() == round_trip(a.momentum(), {other, block}).values);
        }
      // Codes without their scales are of no use.
      coded.tensors.erase("optimizer.w.momentum_absmax_8");
      const auto before = back.momentum();
      CHECK_THROWS_AS(restore_state(back.opt, coded, o), bad_file);
      CHECK(back.momentum() == before);
    }
}

TEST_CASE("set_momentum and get_momentum take state in 8 bits", "[quantized]") {
  for (const code_map map : all_maps) {
    run<muon_8bit> a(coded_muon(map, 6));
    const auto sum = noise<double>(20);
    auto mean = sum;
    for (double& x : mean) x *= 1 - 0.95;
    set_momentum(a.opt, "w", row_major(sum.data(), 5, 4), momentum_form::sum);
    const auto wanted = round_trip(mean, {map, 6}).values, got = a.momentum();
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(wanted[i]).epsilon(1e-12));
    auto beyond = sum;  // the scales are float
    beyond[7] = 1e40;
    CHECK_THROWS_WITH(set_momentum(a.opt, "w", row_major(beyond.data(), 5, 4), momentum_form::mean),
                      Catch::Contains("1e+40") && Catch::Contains("finite in F32"));
    CHECK(a.momentum() == got);
  }
}

TEST_CASE("what decides the format cannot change after finalize()", "[quantized]") {
  run<muon_8bit> a({});
  CHECK_THROWS_WITH(a.opt.set("momentum_map", "e4m3"), Catch::Contains("decides what is kept"));
  CHECK_THROWS_WITH(a.opt.set("momentum_block", "128"), Catch::Contains("decides what is kept"));
  CHECK_THROWS_WITH(a.opt.set("momentum_block", "0"), Catch::Contains(">= 1"));
  CHECK_THROWS_WITH(a.opt.set("momentum_map", "nf4"), Catch::Contains("linear, dynamic, e4m3"));
  a.opt.set("momentum", "0.9");
}

TEST_CASE("state in 8 bits follows parameters that stay when others come", "[quantized]") {
  run<muon_8bit> a({}), b({});
  std::vector<double> w(9), g(9);
  a.opt.step(0.1), b.opt.step(0.1);
  a.opt.add("other", row_major(w.data(), 3, 3), row_major(static_cast<const double*>(g.data()), 3, 3));
  a.opt.finalize();
  a.opt.step(0.1), b.opt.step(0.1);
  CHECK(a.w == b.w);
}
