// Views, the arena, overlap, element types, Philox, settings.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <matopt/core/arena.hpp>
#include <matopt/core/bfloat16.hpp>
#include <matopt/core/float16.hpp>
#include <matopt/core/gram_pivots.hpp>
#include <matopt/core/math.hpp>
#include <matopt/core/overlap.hpp>
#include <matopt/core/philox.hpp>
#include <matopt/core/settings.hpp>
#include <matopt/core/state_layout.hpp>
#include <matopt/core/types.hpp>
#include <matopt/core/view.hpp>
#include <matopt/cuda/no_device.hpp>

using namespace matopt;
using Catch::Matchers::Contains;

// --- view ---

TEST_CASE("view: element addresses of every storage", "[view]") {
  std::vector<int> m(60);
  std::iota(m.begin(), m.end(), 0);
  const auto r = row_major(m.data(), 3, 4, 5);
  const auto c = col_major(m.data(), 3, 4, 5);
  CHECK(r(1, 2) == 6);
  CHECK(c(1, 2) == 7);
  CHECK(r(1, 2, 3) == 42);
  CHECK(r.t()(2, 1, 3) == 42);
  CHECK(r.t().rows == 4);
  CHECK(r.row_block(1, 2)(0, 2) == 6);
  CHECK(r.col_block(2, 2)(1, 0) == 6);
  CHECK(r.col_block(2, 2).cols == 2);
  CHECK(r.col_block(2, 2).rows == 3);
  CHECK(r.col_block(1, 3).row_block(1, 2).t()(2, 1) == 11);
  CHECK(r.matrix(2)(0, 0) == 24);
  CHECK(r.matrix(2).batch == 1);
  CHECK(row_major(m.data(), 2, 2, 3, 10)(1, 1, 2) == 23);
  CHECK((r.row_contiguous() && !r.col_contiguous()));
  CHECK((c.col_contiguous() && !c.row_contiguous()));
  CHECK(row_major(m.data(), 5, 1).col_contiguous());
  const view<const int> readable = r;
  CHECK(readable(2, 3, 4) == 59);
  CHECK(view<int>{}.empty());
  static_assert(std::is_trivially_copyable_v<view<float>>);
}

TEST_CASE("view: matrices at scattered addresses", "[view]") {
  std::vector<double> a(20), b(20);
  std::iota(a.begin(), a.end(), 0.0), std::iota(b.begin(), b.end(), 100.0);
  double* const table[] = {b.data(), a.data()};
  view<double> v{nullptr, 4, 5, 5, 1, 2, 0, table};
  CHECK(v(1, 2, 0) == 107);
  CHECK(v(1, 2, 1) == 7);
  CHECK(v.t()(2, 1, 1) == 7);
  CHECK(v.row_block(1, 3).col_block(2, 2)(0, 0, 1) == 7);
  CHECK(v.row_block(1, 3).offset == 5);
  CHECK_FALSE(v.empty());
  CHECK(view<const double>(v)(3, 4, 0) == 119);
  CHECK(v.row_block(1, 3).matrices(1, 1)(0, 2) == 7);
  CHECK(v.matrices(1, 1).batch == 1);
}

TEST_CASE("view: the diagonal is a row", "[view]") {
  int memory[2 * 30];
  for (int i = 0; i < 60; ++i) memory[i] = i;
  for (const view<int>& v : {view<int>{memory, 4, 4, 5, 1, 2, 30}, view<int>{memory, 4, 4, 1, 6, 2, 30}}) {
    const view<int> d = v.diagonal();
    REQUIRE((d.rows == 1 && d.cols == 4 && d.batch == 2));
    for (index_t b = 0; b < 2; ++b)
      for (index_t i = 0; i < 4; ++i) REQUIRE(&d(0, i, b) == &v(i, i, b));
  }
}

TEST_CASE("view: blocks of a null view stay null", "[view]") {
  const view<float> v = row_major<float>(nullptr, 8, 8, 2);
  CHECK(v.row_block(3, 2).data == nullptr);
  CHECK(v.matrix(1).data == nullptr);
}

// --- arena ---

TEST_CASE("arena: counts what it would place, aligned, and frames give back", "[arena]") {
  alignas(256) static std::byte memory[1 << 14];
  arena counting, placing{memory};
  for (arena* a : {&counting, &placing}) {
    a->take<float>(3, 5);
    {
      const arena_frame frame(*a);
      a->take<double>(7, 7, 3, true);
      a->bytes(1);
    }
    a->take<bfloat16>(9, 1, 2);
  }
  CHECK(counting.peak == placing.peak);
  CHECK(counting.top == placing.top);
  CHECK(counting.top < counting.peak);
  CHECK(counting.peak % arena::alignment == 0);

  arena a{memory};
  const auto x = a.take<double>(3, 3, 4), y = a.take<double>(1, 1), z = a.take<double>(2, 5, 1, true);
  CHECK(reinterpret_cast<std::uintptr_t>(y.data) % 256 == 0);
  CHECK(x.batch_stride * 8 % 64 == 0);
  CHECK(x.batch_stride >= 9);
  CHECK(&x(2, 2, 3) < y.data);
  CHECK(z.col_contiguous());
  CHECK_FALSE(detail::overlap(x.matrix(3), y));
}

TEST_CASE("state_layout: names, shapes and types", "[arena]") {
  arena counting;
  state_layout<bfloat16, double> l(counting, 6, 4, 3, true);
  CHECK(l.matrix("m").col_contiguous());
  CHECK(l.rows("r").rows == 6);
  CHECK(l.columns("c").cols == 4);
  CHECK(l.scalar("s").batch == 3);
  CHECK(l.block("q", 4, 5).cols == 5);
  REQUIRE(l.entries().size() == 5);
  CHECK(l.entries()[0].type == element_type::bf16);
  CHECK(l.entries()[1].type == element_type::f64);
  std::size_t bytes = 0;
  for (const auto& e : l.entries()) bytes += e.bytes;
  CHECK(bytes == counting.peak);
}

// --- overlap ---

TEST_CASE("overlap: against every pair of elements", "[overlap]") {
  std::vector<float> m(400);
  std::vector<view<float>> views;
  for (const index_t at : {0, 3, 17, 60, 121})
    for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {3, 4}, {5, 2}, {1, 6}, {6, 1}})
      for (const index_t lead : {7, 20}) {
        views.push_back({m.data() + at, rows, cols, lead, 1});
        views.push_back({m.data() + at, cols, rows, 1, lead});
      }
  for (const auto& a : views)
    for (const auto& b : views) {
      std::set<const float*> seen;
      bool shared = false;
      for (index_t i = 0; i < a.rows; ++i)
        for (index_t j = 0; j < a.cols; ++j) seen.insert(&a(i, j));
      for (index_t i = 0; i < b.rows; ++i)
        for (index_t j = 0; j < b.cols; ++j) shared |= seen.count(&b(i, j)) > 0;
      REQUIRE(detail::overlap(a, b) == shared);
    }
}

TEST_CASE("overlap: of strided batches of any element size, against every pair of bytes", "[overlap]") {
  std::vector<char> memory(4096);
  const auto bytes_of = [&]<class T>(const view<T>& v) {
    std::set<std::ptrdiff_t> all;
    for (index_t b = 0; b < v.batch; ++b)
      for (index_t i = 0; i < v.rows; ++i)
        for (index_t j = 0; j < v.cols; ++j)
          for (std::size_t k = 0; k < sizeof(T); ++k)
            all.insert(reinterpret_cast<const char*>(&v(i, j, b)) - memory.data() + static_cast<std::ptrdiff_t>(k));
    return all;
  };
  std::uint64_t state = 1;
  const auto below = [&](index_t n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<index_t>((state >> 33) % static_cast<std::uint64_t>(n));
  };
  const auto random_view = [&]<class T>(T*) {
    const index_t strides[] = {0, 1, 2, 3, 4, 6, 7, 8, 12, 24};
    view<T> v{reinterpret_cast<T*>(memory.data()) + (2048 / sizeof(T)) + below(24)};
    v.rows = below(5), v.cols = below(4) + 1, v.batch = below(3) + 1;
    v.row_stride = strides[below(10)], v.col_stride = strides[below(10)],
    v.batch_stride = strides[below(10)] - below(12);
    return v;
  };
  int shared = 0, apart = 0;
  const auto check = [&](const auto& a, const auto& b) {
    const auto x = bytes_of(a), y = bytes_of(b);
    const bool expected = std::any_of(x.begin(), x.end(), [&](auto at) { return y.count(at) > 0; });
    ++(expected ? shared : apart);
    REQUIRE(detail::overlap(a, b) == expected);
    REQUIRE(detail::overlap(b, a) == expected);
  };
  for (int i = 0; i < 4000; ++i) {
    const auto a = random_view(static_cast<float*>(nullptr));
    check(a, random_view(static_cast<float*>(nullptr)));
    check(a, random_view(static_cast<bfloat16*>(nullptr)));
  }
  CHECK(shared > 1000);
  CHECK(apart > 1000);
  // Whether the elements of one view lie apart is told on the safe side.
  for (int i = 0; i < 2000; ++i) {
    auto v = random_view(static_cast<float*>(nullptr));
    if (v.row_stride == 0 || v.col_stride == 0 || v.batch_stride == 0) continue;
    if (detail::footprint_of(v).nested())
      REQUIRE(bytes_of(v).size() == static_cast<std::size_t>(4 * v.rows * v.cols * v.batch));
  }
}

TEST_CASE("overlap: of large interleaved views, in no time", "[overlap]") {
  // Nothing is read. Comparing element by element would take hours.
  const auto at = [](index_t i) { return reinterpret_cast<float*>(std::uintptr_t{1} << 40) + i; };
  const index_t n = 1 << 20;
  CHECK_FALSE(detail::overlap(view<float>{at(0), n, n, 2, 2 * n}, view<float>{at(1), n, n, 2, 2 * n}));
  CHECK(detail::overlap(view<float>{at(0), n, n, 2, 2 * n}, view<float>{at(2), n, n, 2, 2 * n}));
  CHECK_FALSE(detail::overlap(row_major(at(0), n, n).col_block(0, 9), row_major(at(0), n, n).col_block(9, n - 9)));
  CHECK_FALSE(detail::overlap(row_major(at(0), n, n).col_block(0, 9).row_block(7, n - 7),
                              row_major(at(0), n, n).t().row_block(9, 5)));
}

// --- bfloat16, types ---

TEST_CASE("bfloat16: rounds to nearest, ties to even", "[types]") {
  const auto bits = [](std::uint32_t x) { return bfloat16(std::bit_cast<float>(x)).bits; };
  CHECK(bits(0x3f800000) == 0x3f80);
  CHECK(bits(0x3f807fff) == 0x3f80);
  CHECK(bits(0x3f808000) == 0x3f80);  // tie, even below
  CHECK(bits(0x3f808001) == 0x3f81);
  CHECK(bits(0x3f818000) == 0x3f82);  // tie, even above
  CHECK(bits(0xbf818000) == 0xbf82);
  CHECK(bits(0x7f7fffff) == 0x7f80);  // overflows to infinity
  CHECK(bits(0x7f800000) == 0x7f80);
  CHECK(bits(0xff800000) == 0xff80);
  CHECK(bits(0x00000001) == 0x0000);
  CHECK(bits(0x80000000) == 0x8000);
  for (const std::uint32_t nan : {0x7f800001U, 0x7fffffffU, 0xffc00000U, 0xff800001U})
    CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(nan)))));
  for (std::uint32_t b = 0; b < 0x10000; ++b) {  // every finite value survives the round trip
    bfloat16 x;
    x.bits = static_cast<std::uint16_t>(b);
    if (math::finite(static_cast<float>(x))) REQUIRE(bfloat16(static_cast<float>(x)).bits == x.bits);
  }
}

TEST_CASE("the version of the headers is that of the project", "[version]") {
  CHECK(std::to_string(MATOPT_VERSION_MAJOR) + "." + std::to_string(MATOPT_VERSION_MINOR) + "." +
            std::to_string(MATOPT_VERSION_PATCH) ==
        MATOPT_PROJECT_VERSION);
  CHECK(std::string(typeid(matopt::error).name())
            .find("v" + std::to_string(MATOPT_VERSION_MAJOR) + "_" + std::to_string(MATOPT_VERSION_MINOR)) !=
        std::string::npos);
  static_assert(MATOPT_VERSION == 10000 * MATOPT_VERSION_MAJOR + 100 * MATOPT_VERSION_MINOR + MATOPT_VERSION_PATCH);
}

TEST_CASE("types: defaults and names", "[types]") {
  static_assert(std::is_same_v<types<bfloat16>::state, float>);
  static_assert(std::is_same_v<types<bfloat16>::compute, float>);
  static_assert(std::is_same_v<types<double>::gradient, double>);
  static_assert(std::is_same_v<types<float, float, bfloat16>::compute, float>);
  static_assert(std::is_same_v<types<float, float, double>::compute, double>);
  static_assert(std::is_same_v<arithmetic_t<const bfloat16, double>, double>);
  CHECK(name_of(element_type_of<const bfloat16>()) == "BF16");
  CHECK(name_of(element_type::f64) == "F64");
  CHECK(name_of(element_type_of<float16>()) == "F16");
  CHECK(size_of(element_type::bf16) == 2);
  CHECK(size_of(element_type_of<float16>()) == 2);
  static_assert(std::is_same_v<types<float16>::state, float> &&
                std::is_same_v<types<float16, float16, float16>::compute, float>);
  CHECK(size_of(element_type_of<double>()) == 8);
  CHECK(name_of(element_type_of<float16>()) == "F16");
  CHECK(size_of(element_type::f16) == 2);
}

TEST_CASE("math: finite() and saturation", "[types]") {
  CHECK(math::finite(std::numeric_limits<float>::max()));
  CHECK(math::finite(std::numeric_limits<double>::denorm_min()));
  CHECK_FALSE(math::finite(std::numeric_limits<float>::quiet_NaN()));
  CHECK_FALSE(math::finite(-std::numeric_limits<double>::infinity()));
  CHECK(math::saturated(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::max());
}

template <class T>
void check_at_most() {
  using limits = std::numeric_limits<T>;
  const T two = 2, below = std::nextafter(two, T(0)), above = std::nextafter(two, T(3));
  for (const T x : {T(0), limits::denorm_min(), limits::min(), below, two}) CHECK(math::at_most(x, two) == x);
  for (const T x : {above, limits::max(), limits::infinity()}) CHECK(math::at_most(x, two) == two);
}
TEST_CASE("math: at_most() of zero, ordinary numbers and infinity", "[types]") {
  check_at_most<float>();
  check_at_most<double>();
}

template <class T>
void check_signs() {
  using limits = std::numeric_limits<T>;
  for (const T x : {limits::denorm_min(), limits::min(), T(0.5), limits::max(), limits::infinity()}) {
    CHECK(math::sign(x) == 1);
    CHECK(math::sign(-x) == -1);
  }
  for (const T x : {T(0), -T(0), limits::quiet_NaN(), -limits::quiet_NaN(), limits::signaling_NaN()}) {
    CHECK(math::sign(x) == 0);
    CHECK_FALSE(std::signbit(math::sign(x)));
  }
}
TEST_CASE("math: sign() of ordinary numbers, zeros, infinities and NaN", "[types]") {
  check_signs<float>();
  check_signs<double>();
}

// --- philox ---

TEST_CASE("philox: known answers of Random123", "[philox]") {
  CHECK(philox::bits({0, 0, 0, 0}, {0, 0}) == philox::counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t all = 0xffffffff;
  CHECK(philox::bits({all, all, all, all}, {all, all}) ==
        philox::counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox::bits({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        philox::counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox: pinned normals, to the bit", "[philox]") {
  const std::map<std::uint32_t, std::uint64_t> pinned = {
      {0x00000000, 0xc0195a11830fcb45},  // -6.337957428
      {0x00000001, 0xc018aa6c57d4a047},  // -6.166428921
      {0x00001234, 0xc012f293c2cbbfa6},  // -4.736891788
      {0x12345678, 0xbff77b262f8e3ceb},  // -1.467565714
      {0x40000000, 0xbfe5956b9408a790},  // -0.674489774
      {0x7fffffff, 0xbdf40d932f59411c},  // -0.000000000
      {0x80000000, 0x3df40d932f59411c},  // 0.000000000
      {0xa5a5a5a5, 0x3fd827307b3560a4},  // 0.377391930
      {0xf3333333, 0x3ffa5151ddfb0217},  // 1.644853465
      {0xffffffff, 0x40195a11830fcb45},  // 6.337957428
  };
  for (const auto& [word, bits] : pinned) {
    CAPTURE(word);
    CHECK(std::bit_cast<std::uint64_t>(philox::normal_of(word)) == bits);
  }
  // Where each word of a stream goes: four to a counter; stream and step in the upper half of the counter.
  const auto c = philox::bits({1, 0, 7, 9}, {0x89abcdef, 0x01234567});
  for (std::uint64_t i = 0; i < 4; ++i)
    CHECK(philox::normal(0x0123456789abcdef, 7, 9, 4 + i) == philox::normal_of(c[i]));
}

TEST_CASE("philox: normal_of is the normal quantile", "[philox]") {
  for (std::uint64_t w = 1; w < 0x100000000; w = w * 3 + 12345) {
    const double x = philox::normal_of(static_cast<std::uint32_t>(w));
    const double p = (static_cast<double>(w) + 0.5) * 0x1p-32;
    CHECK(0.5 * std::erfc(-x / std::sqrt(2.0)) == Approx(p).epsilon(1e-5));
    CHECK(philox::normal_of(~static_cast<std::uint32_t>(w)) == Approx(-x).epsilon(1e-9));  // odd
  }
  CHECK(philox::normal_of(0) == Approx(-6.337957754553789).epsilon(1e-6));
}

TEST_CASE("philox: moments, and streams that differ", "[philox]") {
  constexpr int n = 200000;
  double moment[5] = {}, cross = 0, lag = 0, before = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double x = philox::normal(42, 3, 1, i), y = philox::normal(42, 4, 1, i);
    double power = 1;
    for (double& m : moment) m += power, power *= x;
    cross += x * y, lag += x * before, before = x;
  }
  // Five standard errors each: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n.
  CHECK(std::abs(moment[1] / n) < 5 / std::sqrt(n));
  CHECK(std::abs(moment[2] / n - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(moment[3] / n) < 5 * std::sqrt(15.0 / n));
  CHECK(std::abs(moment[4] / n - 3) < 5 * std::sqrt(96.0 / n));
  CHECK(std::abs(cross / n) < 5 / std::sqrt(n));
  CHECK(std::abs(lag / n) < 5 / std::sqrt(n));
}

// --- settings ---

namespace {
enum class colour { red, green };
constexpr auto enum_names(colour) { return std::array<std::string_view, 2>{"red", "green"}; }
struct paint {
  double thickness = 0.5;
  index_t coats = 2;
  bool glossy = false;
  colour tint = colour::red;
  std::vector<double> layers{0.5};

  static std::string name() { return "paint"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("thickness", self.thickness, range{.low = 0, .high = 1, .low_open = true});
    visit("coats", self.coats, range{.low = 1, .high = 9});
    visit("glossy", self.glossy);
    visit("tint", self.tint);
    visit("layers", self.layers, range{.low = 0, .high = 1, .high_open = true});
  }
};
}  // namespace

TEST_CASE("settings: set by text, read back as text", "[settings]") {
  paint p;
  set_setting(p, "thickness", "0.25"), set_setting(p, "coats", "3"), set_setting(p, "glossy", "true");
  set_setting(p, "tint", "green"), set_setting(p, "layers", "0,0.5,0.75");
  CHECK(p.thickness == 0.25);
  CHECK(p.coats == 3);
  CHECK(p.glossy);
  CHECK(p.tint == colour::green);
  CHECK(p.layers == std::vector<double>{0, 0.5, 0.75});
  std::string all;
  for (const auto& s : settings_of(p)) all += s.name + "=" + s.value + " ";
  CHECK(all == "thickness=0.25 coats=3 glossy=true tint=green layers=0,0.5,0.75 ");
  paint q;
  for (const auto& s : settings_of(p)) set_setting(q, s.name, s.value);
  CHECK(q.layers == p.layers);
}

TEST_CASE("settings: a bad value names the setting, the value and what is legal, and changes nothing", "[settings]") {
  paint p;
  const auto refused = [&](const char* key, const char* value) {
    try {
      set_setting(p, key, value);
    } catch (const error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK_THAT(refused("thickness", "0"), Contains("thickness is 0;") && Contains("(0, 1]"));
  CHECK_THAT(refused("thickness", "1.5"), Contains("1.5"));
  CHECK_THAT(refused("thickness", "nan"), Contains("thickness is nan"));
  CHECK_THAT(refused("thickness", "inf"), Contains("legal"));
  CHECK_THAT(refused("thickness", "0.5x"), Contains("\"0.5x\"") && Contains("a number"));
  CHECK_THAT(refused("thickness", ""), Contains("a number"));
  for (const char* lacks_one : {"0.1,,0.2", ",0.1", "0.1,", ","})
    CHECK_THAT(refused("layers", lacks_one), Contains("layers is \"\"") && Contains("a number"));
  CHECK_THAT(refused("coats", "2.5"), Contains("a whole number"));
  CHECK_THAT(refused("coats", "1e300"), Contains("a whole number, of at most 9007199254740992"));
  for (const char* beyond : {"1e400", "-1e400", "1e-400"})
    CHECK_THAT(refused("thickness", beyond), Contains(std::string("thickness is ") + beyond) && Contains("a double"));
  CHECK_THAT(refused("coats", "nan"), Contains("coats"));
  CHECK_THAT(refused("coats", "10"), Contains("[1, 9]"));
  CHECK_THAT(refused("glossy", "yes"), Contains("true or false"));
  CHECK_THAT(refused("tint", "blue"), Contains("one of red, green"));
  CHECK_THAT(refused("layers", "0.5,1"), Contains("layers is 1;") && Contains("[0, 1)"));
  CHECK_THAT(refused("layers", "0.5,,"), Contains("layers"));
  CHECK_THAT(refused("thicknes", "1"), Contains("nearest: \"thickness\"") && Contains("known: thickness, coats"));
  CHECK_THAT(refused("cots", "1"), Contains("nearest: \"coats\""));
  CHECK(nearest_name("Muon", {"luon", "muon"}) == "muon");  // whatever the case is
  CHECK(p.thickness == 0.5);
  CHECK(p.coats == 2);
  CHECK(p.layers == std::vector<double>{0.5});
  p.tint = static_cast<colour>(7);  // by a program that takes it from a number
  CHECK_THROWS_WITH(validate_settings(p), Contains("tint is \"7\"") && Contains("one of red, green"));
}

namespace {

// Where v <- b v + (1 - b) x stands still, kept in S and computed in float as a step does.
template <class S>
float settled(double b, float v, float x) {
  S kept(v);
  for (int i = 0; i < 1'000'000; ++i) {
    const S next(static_cast<float>(b) * kept + static_cast<float>(1 - b) * x);
    if (next.bits == kept.bits) return kept;
    kept = next;
  }
  return std::nanf("");
}

template <class S>
void check_slowest_average() {
  const double b = slowest_average<S>, unit = (1 - b) / 2;
  CHECK(unit == std::ldexp(1.0, -digits_of<S>));
  CHECK(static_cast<float>(S(static_cast<float>(1 + 2 * unit))) == static_cast<float>(1 + 2 * unit));
  CHECK(static_cast<float>(S(static_cast<float>(1 + unit))) == 1);  // half way to it, and to even
  // Up to the limit every average comes to where it can be used, from above and from below, ...
  for (const double slower : {b, 2 * b - 1, 0.95})
    for (float x = 1; x < 2; x *= 1.01F)
      for (const float from : {900.F, 3.F, 1e-2F}) {
        const float v = settled<S>(slower, from, x);
        CAPTURE(slower, x, from);
        CHECK(v <= 2 * x * (1 + 2 * unit));
        CHECK(v >= 0.66F * x);
      }
  // ... beyond it some do not, ...
  const auto beside = static_cast<float>(1 + 2 * unit);
  CHECK(settled<S>(1 - 1.9 * unit, beside, beside / 2.05F) == beside);
  // ... and soon all of them are far off, or do not fall at all.
  CHECK(settled<S>(1 - unit, beside, static_cast<float>(4 * unit)) == beside);
  CHECK(settled<S>(1 - unit / 2, 1, 0) == 1);
  CHECK(settled<S>(1 - unit / 2, 1.5F, 0) == 1.5F);
}

// A policy with averages in its state.
struct averaging {
  double slow = 0.95, alternating = 0.95, free = 0.95;
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("slow", self.slow, range{.low = 0, .high = 1, .high_open = true, .average = 1});
    visit("alternating", self.alternating, range{.low = 0, .high = 1, .high_open = true, .average = 2});
    visit("free", self.free, range{.low = 0, .high = 1, .high_open = true});
  }
};

}  // namespace

TEST_CASE("averages: how slow one may be in state of 16 bits", "[settings]") {
  check_slowest_average<bfloat16>();
  check_slowest_average<float16>();
}

TEST_CASE("averages: what state of 16 bits cannot follow is refused with what it can", "[settings]") {
  const auto told = [](auto state, const averaging& p) {
    try {
      validate_settings_in<float, decltype(state)>(p);
    } catch (const bad_value& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(told(bfloat16{}, {}) == "accepted");
  CHECK(told(bfloat16{}, {.slow = 0.9921875}) == "accepted");
  CHECK(told(float16{}, {.slow = 0.999}) == "accepted");
  CHECK(told(float{}, {.slow = 0.999999}) == "accepted");
  CHECK(told(bfloat16{}, {.free = 0.9999}) == "accepted");
  CHECK_THAT(told(bfloat16{}, {.slow = 0.999}), Contains("slow is 0.999; legal: at most 0.9921875 with state in BF16"));
  CHECK_THAT(told(float16{}, {.slow = 0.9995}), Contains("at most 0.9990234375 with state in F16"));
  CHECK_THAT(told(bfloat16{}, {.slow = 1}), Contains("[0, 1)"));
  // Each of two averages that are written in turn has the square of the coefficient.
  const std::string square = told(bfloat16{}, {.alternating = 0.9965});
  CHECK_THAT(square, Contains("alternating is 0.9965; legal: at most 0.99608"));
  const double largest = std::stod(square.substr(square.find("most ") + 5));
  CHECK(told(bfloat16{}, {.alternating = largest}) == "accepted");
  CHECK(told(bfloat16{}, {.alternating = std::nextafter(largest, 1.0)}) != "accepted");
}

TEST_CASE("settings: ranges in words", "[settings]") {
  CHECK(detail::text(range{}) == "any finite number");
  CHECK(detail::text(range{.low = 0}) == ">= 0");
  CHECK(detail::text(range{.low = 0, .low_open = true}) == "> 0");
  CHECK(detail::text(range{.high = 2, .high_open = true}) == "< 2");
  CHECK_FALSE(range{}.contains(std::nan("")));
  CHECK_FALSE(range{}.contains(INFINITY));
}

TEST_CASE("errors carry the library's name and one base", "[settings]") {
  CHECK_THROWS_WITH(throw bad_value("x", "1", "2"), "matopt: x is 1; legal: 2");
  CHECK_THROWS_AS(throw bad_order("y"), error);
  CHECK_THROWS_AS(throw bad_file("z"), std::runtime_error);
}

TEST_CASE("float16: every value, halves between neighbours, and the ends", "[types]") {
  const auto value = [](unsigned bits) {  // by the definition of binary16
    const int sign = bits & 0x8000U ? -1 : 1, exponent = static_cast<int>(bits >> 10 & 31U);
    const double fraction = bits & 0x3ffU;
    return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
  };
  const auto of = [](double x) { return static_cast<unsigned>(float16(static_cast<float>(x)).bits); };
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    float16 h;
    h.bits = static_cast<std::uint16_t>(bits);
    if ((bits & 0x7c00U) == 0x7c00U) continue;
    REQUIRE(static_cast<double>(static_cast<float>(h)) == value(bits));
    REQUIRE(of(value(bits)) == bits);
    if ((bits & 0x7fffU) == 0x7bffU) continue;
    const double middle = (value(bits) + value(bits + 1)) / 2;
    REQUIRE(of(middle) == bits + (bits & 1U));  // ties go to the even one
    REQUIRE(of(std::nextafterf(static_cast<float>(middle), static_cast<float>(value(bits)))) == bits);
    REQUIRE(of(std::nextafterf(static_cast<float>(middle), static_cast<float>(value(bits + 1)))) == bits + 1);
  }
  CHECK(of(65519) == 0x7bffU);
  CHECK(of(65520) == 0x7c00U);
  CHECK(of(-1e38) == 0xfc00U);
  CHECK(of(std::numeric_limits<double>::infinity()) == 0x7c00U);
  CHECK((of(std::numeric_limits<double>::quiet_NaN()) & 0x7fffU) > 0x7c00U);
  float16 infinity;
  infinity.bits = 0x7c00U;
  CHECK(std::isinf(static_cast<float>(infinity)));
  infinity.bits = 0xfc00U;
  CHECK(static_cast<float>(infinity) == -std::numeric_limits<float>::infinity());
  for (unsigned bits = 0x7c01U; bits < 0x8000U; ++bits) {
    float16 nan;
    nan.bits = static_cast<std::uint16_t>(bits);
    REQUIRE(std::isnan(static_cast<float>(nan)));
    REQUIRE((float16(static_cast<float>(nan)).bits & 0x7fffU) > 0x7c00U);
  }
  CHECK(of(0x1p-26) == 0);
  CHECK(of(-0.0) == 0x8000U);
  CHECK(of(std::numeric_limits<float>::denorm_min()) == 0);
}

// --- what to do without a GPU; needs none ---

TEST_CASE("why_no_device: no driver, an old one, and a good one without a GPU", "[cuda]") {
  using cuda::why_no_device;
  CHECK_THAT(why_no_device(0, 13000), Contains("no NVIDIA driver") && Contains("CUDA 13.0"));
  CHECK_THAT(why_no_device(12040, 13000),
             Contains("driver is for CUDA 12.4, too old") && Contains("one for CUDA 13.0"));
  CHECK_THAT(why_no_device(11080, 12010), Contains("11.8, too old") && Contains("12.1"));
  for (const int driver : {13000, 13010, 14000})  // 13.0 serves 13.1, too
    for (const int runtime : {13000, 13010, 12080}) {
      CHECK_THAT(why_no_device(driver, runtime), Contains("no GPU") && Contains("CUDA_VISIBLE_DEVICES"));
      CHECK_THAT(why_no_device(driver, runtime), !Contains("old"));
    }
}

// --- gram_pivots ---

struct factor_of_gram {
  std::vector<double> inverse;  // of R's diagonal
  bool lost = false;
};
// Of the Gram matrix R^T R; `must`: as next() has it.
static factor_of_gram refactored(const std::vector<std::vector<double>>& r, double must, bool last) {
  const std::size_t n = r.size();
  std::vector<std::vector<double>> g(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) g[i][j] += r[k][i] * r[k][j];
  detail::gram_pivots pivots;
  factor_of_gram out;
  std::vector<double> length, along(n);
  for (std::size_t k = 0; k < n; ++k) length.push_back(std::sqrt(g[k][k]));
  for (std::size_t k = 0; k < n; ++k) {
    double v = along[k];
    const double by = pivots.next(g[k][k], length[k], must, last, v);
    out.inverse.push_back(by);
    for (std::size_t j = k + 1; j < n; ++j) {
      along[j] += g[k][j] * by * v;
      for (std::size_t i = k + 1; i <= j; ++i) g[i][j] -= g[k][i] * by * (g[k][j] * by);
    }
  }
  out.lost = pivots.lost;
  return out;
}

TEST_CASE("gram_pivots: what is left of each column, and when that cannot be told", "[core]") {
  SECTION("orthonormal columns, and one that is zero") {
    for (const bool last : {false, true}) {
      const factor_of_gram f = refactored({{1, 0, 0}, {0, 1, 0}, {0, 0, 0}}, 1e-6, last);
      CHECK(f.inverse == std::vector<double>{1, 1, 0});
      CHECK_FALSE(f.lost);
    }
  }
  SECTION("a column that depends on others becomes zero, if rounding allows to see that it does") {
    const std::vector<std::vector<double>> r = {{1, 0.6, 0.8}, {0, 0.8, 0.6}, {0, 0, 0}};
    const factor_of_gram f = refactored(r, 1e-6, false);
    CHECK(f.inverse[2] == 0);
    CHECK_FALSE(f.lost);
    CHECK(refactored(r, 1e-9, false).lost);
  }
  SECTION("a column of which little is left; in the last round that must not be") {
    const std::vector<std::vector<double>> r = {{1, 1}, {0, 1e-3}};
    const factor_of_gram first = refactored(r, 1e-6, false), second = refactored(r, 1e-6, true);
    CHECK(first.inverse[1] == Approx(1e3).epsilon(1e-6));
    CHECK(second.inverse[1] == 0);
    CHECK_FALSE((first.lost || second.lost));
  }
  SECTION("columns that are far from dependent one by one, but not together") {
    std::vector<std::vector<double>> r(48, std::vector<double>(48));
    for (std::size_t k = 0; k < 48; ++k) {
      r[k][k] = k == 0 ? 1 : 0.6;
      if (k > 0) r[k - 1][k] = k % 2 ? 0.8 : -0.8;
    }
    CHECK(refactored(r, 1e-6, false).lost);
    r.resize(5);
    for (auto& row : r) row.resize(5);
    CHECK_FALSE(refactored(r, 1e-6, false).lost);
    CHECK(refactored(r, 1e-6, true).lost);
  }
}
