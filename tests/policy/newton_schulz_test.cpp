// The coefficient sets and norms of newton_schulz: the iteration against its scalar map, how near to the polar factor
// it comes, and inputs that rounding or a wrong norm would send to infinity. Also in float16, by products rounded to
// it.
#include <catch2/catch.hpp>

#include <matopt/core/overlap.hpp>
#include <matopt/orthogonalizer_plan.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/nuclear_scaled.hpp>

#include <array>
#include <cmath>
#include <limits>

#include "../support/orthogonalize.hpp"
#include "../support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// The CPU's verbs with products in float16, as a GPU has them: summed in float, rounded once.
struct half_backend : eigen_backend {
  template <class T>
  static constexpr bool multiplies = std::is_same_v<T, float16>;
  using eigen_backend::eigen_backend, eigen_backend::gemm, eigen_backend::gemm_symmetric;

  void gemm(const status_word*, float alpha, view<const float16> a, view<const float16> b, float beta,
            view<const float16> c, view<float16> d) {
    std::vector<float> row(static_cast<std::size_t>(d.cols));
    for (index_t k = 0; k < d.batch; ++k)
      for (index_t i = 0; i < d.rows; ++i) {
        std::fill(row.begin(), row.end(), 0.0F);
        for (index_t l = 0; l < a.cols; ++l)
          if (const float factor = a(i, l, k); factor != 0)
            for (index_t j = 0; j < d.cols; ++j) row[static_cast<std::size_t>(j)] += factor * b(l, j, k);
        for (index_t j = 0; j < d.cols; ++j)
          d(i, j, k) = float16(alpha * row[static_cast<std::size_t>(j)] + (beta == 0 ? 0 : beta * c(i, j, k)));
      }
  }
  void gemm_symmetric(const status_word* guard, float alpha, view<const float16> a, view<const float16> b, float beta,
                      view<const float16> c, view<float16> d) {
    gemm(guard, alpha, a, b, beta, c, d);
  }
  // Whoever converts elements in another order than this backend would overwrite what is still to be read.
  template <class F, class T, class... V>
  void for_each(const status_word* guard, F f, view<T> y, V... v) {
    (check_apart(y, v), ...);
    eigen_backend::for_each(guard, f, y, v...);
  }

 private:
  template <class T, class U>
  static void check_apart(const view<T>& y, const view<U>& v) {
    if (std::is_same_v<const T, const U>) return;
    for (index_t b = 0; b < y.batch; ++b) CHECK_FALSE(detail::overlap(y.matrix(b), v.matrix(b)));
  }
  template <class T, class V>
  static void check_apart(const view<T>&, const V&) {}
};

// How many products a step asks for.
struct product_counter : eigen_backend {
  static inline index_t whole = 0, symmetric = 0;
  using eigen_backend::eigen_backend;
  template <class... A>
  void gemm(A... a) {
    ++whole, eigen_backend::gemm(a...);
  }
  template <class... A>
  void gemm_symmetric(A... a) {
    ++symmetric, eigen_backend::gemm_symmetric(a...);
  }
};

// All matrices as one batch.
template <class B, class C, class Element>
std::vector<mat> together(const newton_schulz<Element>& o, const std::vector<mat>& given) {
  B backend(1);
  auto memory = backend.allocate(std::size_t{1} << 23);
  arena scratch{memory.data()};
  stored<C> x(given[0].rows, given[0].cols, layout::row_major, static_cast<index_t>(given.size()));
  x.fill([&](index_t i, index_t j, index_t b) { return given[static_cast<std::size_t>(b)](i, j); });
  pass<B, C> e(backend, scratch, nullptr, nullptr, static_cast<index_t>(given.size()), 1);
  no_state none;
  detail::orthogonalize(o, e, none, x.v());
  std::vector<mat> out;
  for (index_t b = 0; b < x.v().batch; ++b) out.push_back(to_mat(x.cv().matrices(b, 1)));
  return out;
}
mat in_half(const newton_schulz<float16>& o, const mat& x) { return together<half_backend, float>(o, {x})[0]; }

std::vector<coefficient_set> all_sets() {
  std::vector<coefficient_set> sets;
  for (std::size_t i = 0; i < enum_names(coefficient_set{}).size(); ++i)
    sets.push_back(static_cast<coefficient_set>(i));
  return sets;
}

double applied(const odd_polynomial& p, double x) {
  return p.a * x + p.b * std::pow(x, 3) + p.c * std::pow(x, 5) + p.d * std::pow(x, 7) + p.e * std::pow(x, 9);
}
double applied(coefficient_set set, index_t steps, double x) {
  for (index_t i = 0; i < steps; ++i) x = applied(coefficients(set, i), x);
  return x;
}
double schatten(const std::vector<double>& s, double exponent) {
  double sum = 0;
  for (const double x : s) sum += std::pow(x, exponent);
  return std::pow(sum, 1 / exponent);
}
double exponent_of(spectral_bound b) {
  return b == spectral_bound::frobenius ? 2 : b == spectral_bound::schatten4 ? 4 : 8;
}

std::vector<double> falling(index_t m, index_t n) {
  std::vector<double> s;
  for (index_t i = 0; i < std::min({m, n, index_t{9}}); ++i) s.push_back(3 * std::pow(0.55, static_cast<double>(i)));
  return s;
}
std::vector<double> mapped(const newton_schulz<>& o, std::vector<double> s) {
  const double n = schatten(s, 2), m = norm_margin(o.coefficients);
  const double divisor = (m * n + o.eps) * schatten(s, exponent_of(o.bound)) / n;
  for (double& x : s) x = applied(o.coefficients, o.steps, x / divisor);
  return s;
}

mat gaussian(index_t m, index_t n, std::uint64_t seed) {
  mat x(m, n);
  uniform next(seed);
  for (double& v : x.a) {
    v = 0;
    for (int i = 0; i < 12; ++i) v += 0.5 * next();  // nearly normal
  }
  return x;
}
// Gaussian; 1/i; eight directions and noise: the three spectra on which the benchmarks take the polar error.
std::vector<mat> three_spectra(index_t m, index_t n) {
  std::vector<double> inverse;
  for (index_t i = 1; i <= m; ++i) inverse.push_back(1 / static_cast<double>(i));
  return {gaussian(m, n, 1), with_spectrum(m, n, inverse, 3),
          with_spectrum(m, n, std::vector<double>(8, 1.0), 4) + 0.01 * gaussian(m, n, 2)};
}
double top_singular_value(const mat& y) { return largest(y) < 1e6 ? spectral_norm(y) : largest(y); }
double polar_error(const mat& y, const mat& polar) {
  return frobenius(y - polar) / std::sqrt(static_cast<double>(std::min(y.rows, y.cols)));
}
double limit(newton_schulz_form form) {
  return form == newton_schulz_form::gram ? gram_tolerance<double> : tolerance<double>;
}

// Few directions: the largest singular value is the whole norm, and rounding must not lift it out of a set's range.
std::vector<mat> hard_inputs(index_t m, index_t n) {
  mat one(m, n), row(m, n), ones(m, n);
  one(0, 0) = 3;
  uniform next(5);
  for (index_t j = 0; j < n; ++j) row(m / 2, j) = next();
  for (double& x : ones.a) x = 1;
  std::vector<mat> out{one, row, ones};
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    out.push_back(random_mat(m, 1, 20 + seed) * random_mat(1, n, 30 + seed));
  std::vector<double> decades;
  for (index_t i = 0; i < std::min(m, n); ++i) decades.push_back(std::pow(0.1, static_cast<double>(i)));
  out.push_back(with_spectrum(m, n, decades, 6));
  return out;
}

constexpr std::array both_forms{newton_schulz_form::standard, newton_schulz_form::gram};

}  // namespace

// --- the scalar map ---

TEST_CASE("every coefficient set is its scalar map, at awkward shapes", "[newton_schulz]") {
  for (const auto set : all_sets())
    for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 1}, {1, 7}, {7, 1}, {129, 127}, {40, 9}, {9, 40}})
      for (const auto form : both_forms) {
        newton_schulz<> o = newton_schulz<>::preset(set);
        if (o.bound == spectral_bound::aol) o.bound = spectral_bound::frobenius;  // no map of singular values
        o.form = form;
        const auto s = falling(m, n);
        const mat expected = with_spectrum(m, n, mapped(o, s), 7);
        CAPTURE(static_cast<int>(set), static_cast<int>(form), m, n);
        CHECK(largest(orthogonalized(o, with_spectrum(m, n, s, 7)) - expected) < limit(form));
      }
}

TEST_CASE("a batch: every matrix by itself, whichever norm", "[newton_schulz]") {
  std::vector<mat> given;
  for (std::uint64_t i = 0; i < 3; ++i)
    given.push_back(std::pow(1e3, static_cast<double>(i)) * random_mat(6, 11, 40 + i));
  given.push_back(mat(6, 11));
  given.push_back(with_spectrum(6, 11, {1}, 3));
  for (const auto set : {coefficient_set::degree9_4, coefficient_set::quintic4, coefficient_set::cubic})
    for (const auto bound : {spectral_bound::frobenius, spectral_bound::schatten4, spectral_bound::schatten8})
      for (const auto form : both_forms) {
        CAPTURE(static_cast<int>(set), static_cast<int>(bound), static_cast<int>(form));
        const newton_schulz<> o{.coefficients = set, .steps = 4, .form = form, .bound = bound};
        const auto got = together<eigen_backend, double>(o, given);
        for (std::size_t i = 0; i < given.size(); ++i)
          CHECK(largest(got[i] - orthogonalized(o, given[i])) < tolerance<double>);
        CHECK(largest(got[3]) == 0);
      }
}

TEST_CASE("bands of the minimax sets, and what repeating the last row does", "[newton_schulz]") {
  struct band {
    coefficient_set set;
    double low, least, most;
  };
  for (const auto& [set, low, least, most] :
       {band{coefficient_set::degree9_4, 1.25e-3, 0.9885, 1.0107},
        band{coefficient_set::degree9_3, 3.6e-3, 0.876, 1.123}, band{coefficient_set::quintic4, 1.1e-2, 0.982, 1.013},
        band{coefficient_set::cans, 1.04e-3, 0.866, 1.1135}, band{coefficient_set::deepseek, 1e-3, 0.9999, 1.001},
        band{coefficient_set::speedrun12, 1e-3, 0.99999, 1.00001}}) {
    CAPTURE(static_cast<int>(set));
    const index_t steps = usual_steps(set);
    double lowest = 9, highest = 0, beyond = 0, long_lowest = 9, long_highest = 0;
    for (double x = low; x <= 1; x *= 1.0002) {
      const double y = applied(set, steps, x / norm_margin(set)), z = applied(set, steps + 7, x / norm_margin(set));
      lowest = std::min(lowest, y), highest = std::max(highest, y);
      long_lowest = std::min(long_lowest, z), long_highest = std::max(long_highest, z);
    }
    CHECK(lowest > least);
    CHECK(highest < most);
    CHECK(long_lowest > least - 0.01);
    CHECK(long_highest < most + 0.01);
    // The bands are those of the numbers, not wider ones: minimax errors reach both ends.
    if (set != coefficient_set::deepseek && set != coefficient_set::speedrun12) CHECK(highest > most - 0.001);
    // What rounding lifts above 1 stays in the band.
    for (const double x : {1.0, 1.002, 1.004}) beyond = std::max(beyond, applied(set, steps, x / norm_margin(set)));
    CHECK(beyond < most);
  }
  CHECK(norm_margin(coefficient_set::degree9_3) == norm_margin(coefficient_set::degree9_4));
}

TEST_CASE("the numbers of the sets", "[newton_schulz]") {
  // Computed apart, at 0.0003, 0.05 and 0.8 times the norm.
  struct values {
    coefficient_set set;
    double small, middle, large;
  };
  for (const auto& [set, small, middle, large] :
       {values{coefficient_set::cans, 0.295298558471, 1.110184998223, 0.961150586150},
        values{coefficient_set::deepseek, 1.000001000365, 1.000183075142, 1.000456354249},
        values{coefficient_set::degree9_4, 0.373167133557, 0.993688737508, 0.991971468590},
        values{coefficient_set::degree9_3, 0.088610754093, 1.121064764116, 0.907811025813},
        values{coefficient_set::cubic5, 0.035792342815, 0.992760913039, 0.796533796030},
        values{coefficient_set::quintic4, 0.042272555329, 1.012548720426, 1.004750475274},
        values{coefficient_set::speedrun12, 0.884840393069, 1.000000000000, 1.000000000000}}) {
    CAPTURE(static_cast<int>(set));
    const auto at = [set = set](double x) { return applied(set, usual_steps(set), x / norm_margin(set)); };
    CHECK(at(0.0003) == Approx(small).epsilon(1e-10));
    CHECK(at(0.05) == Approx(middle).epsilon(1e-10));
    CHECK(at(0.8) == Approx(large).epsilon(1e-10));
  }
}

TEST_CASE("products of a set, and its preset", "[newton_schulz]") {
  const auto count = [](coefficient_set set, newton_schulz_form form) {
    newton_schulz<> o = newton_schulz<>::preset(set);
    o.form = form, product_counter::whole = product_counter::symmetric = 0;
    together<product_counter, float>(o, {random_mat(4, 6, 1)});
    return std::pair{product_counter::symmetric, product_counter::whole};
  };
  using counts = std::pair<index_t, index_t>;
  constexpr auto standard = newton_schulz_form::standard, gram = newton_schulz_form::gram;
  CHECK(count(coefficient_set::keller, standard) == counts{10, 5});
  CHECK(count(coefficient_set::degree9_4, standard) == counts{12, 4});
  CHECK(count(coefficient_set::degree9_3, standard) == counts{9, 3});
  CHECK(count(coefficient_set::quintic4, standard) == counts{8, 4});  // the norm is made of products that there are
  CHECK(count(coefficient_set::keller, gram) == counts{18, 1});
  CHECK(count(coefficient_set::degree9_4, gram) == counts{18, 1});
  CHECK(count(coefficient_set::degree9_3, gram) == counts{13, 1});
  CHECK(count(coefficient_set::quintic4, gram) == counts{14, 1});
  CHECK(odd_polynomial{1.5, -.5}.degree() == 3);
  CHECK(coefficients(coefficient_set::keller, 0).degree() == 5);
  CHECK(coefficients(coefficient_set::degree9_3, 2).degree() == 9);
  CHECK(newton_schulz<>::preset(coefficient_set::degree9_3).steps == 3);
  CHECK(newton_schulz<>::preset(coefficient_set::degree9_4).steps == 4);
  CHECK(newton_schulz<>::preset(coefficient_set::quintic4).bound == spectral_bound::schatten8);
  CHECK(newton_schulz<>::preset(coefficient_set::keller).bound == spectral_bound::frobenius);
  newton_schulz<> o;
  set_setting(o, "ns_coefficients", "degree9_3"), set_setting(o, "ns_bound", "schatten4");
  CHECK(o.coefficients == coefficient_set::degree9_3);
  CHECK(o.bound == spectral_bound::schatten4);
  CHECK_THROWS_WITH(set_setting(o, "ns_bound", "nuclear"), Catch::Contains("frobenius, schatten4, schatten8, aol"));
  CHECK(newton_schulz<>::preset(coefficient_set::speedrun12).steps == 12);
  for (const auto set : {coefficient_set::turbo, coefficient_set::flash}) {
    CHECK(newton_schulz<>::preset(set).steps == 4);
    CHECK(newton_schulz<>::preset(set).bound == spectral_bound::aol);
    CHECK(count(set, standard) == counts{8, 4});  // the Gram matrix of AOL is that of the first step
    CHECK(count(set, gram) == counts{14, 1});
  }
}

// --- rows of one's own ---

TEST_CASE("rows of one's own are their scalar map, of every degree", "[newton_schulz][rows]") {
  const odd_polynomial three{2, -1.1}, five{2.2, -1.9, 0.6}, seven{2.3, -2.6, 1.7, -0.45},
      nine{2.4, -3, 2.6, -1.2, 0.22}, nearly_seven{2.3, -2.6, 1.7, -0.45, 0.001}, without_middle{1.4, 0, 0, -0.5};
  for (const coefficient_rows& rows : std::vector<coefficient_rows>{{three},
                                                                    {five},
                                                                    {seven},
                                                                    {nine},
                                                                    {nearly_seven},
                                                                    {without_middle},
                                                                    {nine, seven, five, three},
                                                                    {seven, without_middle, nearly_seven},
                                                                    {three, seven}})
    for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 7}, {9, 40}, {33, 12}, {8, 8}})
      for (const auto form : both_forms) {
        newton_schulz<> o = newton_schulz<>::with_rows(rows);
        o.form = form;
        CAPTURE(rows.text(), m, n, static_cast<int>(form));
        CHECK(o.steps == rows.size());
        CHECK_NOTHROW(o.validate());
        std::vector<double> expected;
        const auto s = falling(m, n);
        for (double x : s) {
          x /= schatten(s, 2);
          for (index_t i = 0; i < rows.size(); ++i) x = applied(rows[i], x);
          expected.push_back(x);
        }
        const mat given = with_spectrum(m, n, s, 7), mapped_to = with_spectrum(m, n, expected, 7);
        CHECK(largest(orthogonalized(o, given) - mapped_to) < limit(form));
        newton_schulz<float16> half = newton_schulz<float16>::with_rows(rows);
        half.form = form;
        CHECK(largest(in_half(half, given) - mapped_to) < 0.02);
        // Behind a Schatten norm, whose square the first step may use.
        o.bound = spectral_bound::schatten8;
        newton_schulz<> plain = o;
        plain.form = newton_schulz_form::standard, plain.bound = spectral_bound::schatten4;
        if (s.size() == 1) CHECK(largest(orthogonalized(o, given) - orthogonalized(plain, given)) < limit(form));
      }
  // One row serves all steps.
  newton_schulz<> once = newton_schulz<>::with_rows({{3.4445, -4.7750, 2.0315}});
  once.steps = 5;
  const mat x = random_mat(6, 9, 3);
  CHECK(largest(orthogonalized(once, x) - orthogonalized(newton_schulz<>{}, x)) == 0);
}

TEST_CASE("rows as text", "[newton_schulz][rows]") {
  newton_schulz<> o;
  const auto set = [&](const char* text) { set_setting(o, "ns_rows", text); };
  set("3.4445,-4.775,2.0315;1.5,-0.5;2,-1,0.5,0,-0.25");
  REQUIRE(o.rows.size() == 3);
  CHECK(o.rows[0].c == 2.0315);
  CHECK(o.rows[1].degree() == 3);
  CHECK(o.rows[2].e == -0.25);
  CHECK(o.rows[9].e == -0.25);
  CHECK(o.rows.text() == "3.4445,-4.775,2.0315;1.5,-0.5;2,-1,0.5,0,-0.25");
  const auto listed = settings_of(o);
  CHECK(std::any_of(listed.begin(), listed.end(),
                    [&](const setting& s) { return s.name == "ns_rows" && s.value == o.rows.text(); }));
  for (const char* wrong : {"1", "1,2,3,4,5,6", ";", "1.5,-0.5;;1.5,-0.5", "1.5,-0.5;", ";1.5,-0.5"})
    CHECK_THROWS_WITH(set(wrong), Catch::Contains("a row of ns_rows") && Catch::Contains("2 to 5 numbers"));
  CHECK_THROWS_WITH(set("1.5,x"), Catch::Contains("ns_rows"));
  CHECK_THROWS_WITH(set("1.5,-0.5,"), Catch::Contains("ns_rows is \"\""));
  CHECK_THROWS_WITH(set("1.5,nan"), Catch::Contains("ns_rows"));
  CHECK(o.rows.size() == 3);
  set("");
  CHECK(o.rows.empty());
}

TEST_CASE("rows that diverge or change a sign are refused, by a rule and by a plan", "[newton_schulz][rows]") {
  const odd_polynomial keller{3.4445, -4.7750, 2.0315};
  const coefficient_rows emerging{
      {4.0098, -7.0585, 2.4635}, {3.4585, -5.5479, 2.5959}, {2.7573, -3.2939, 1.4254}, {2.7215, -3.0494, 1.3169}};
  const coefficient_rows flips{{3.4445, -6, 2.0315}, {3.4445, -6, 2.0315}, {3.4445, -6, 2.0315}};
  const coefficient_rows grows{{3.4445, 4.7750, 2.0315}, {3.4445, 4.7750, 2.0315}};
  // 1 goes to 1, but what 16 bits make of it goes to 1.03, 1.08, ...
  const coefficient_rows steep{{0.5, -3, 3.5}, {0.5, -3, 3.5}, {0.5, -3, 3.5}};
  const mat rank_one = with_spectrum(4, 6, {2}, 3);
  for (const auto& rows : {emerging, flips, grows, steep, coefficient_rows{{-1, 0}}, coefficient_rows{{1.6, 0}}}) {
    CAPTURE(rows.text());
    newton_schulz<> o = newton_schulz<>::with_rows(rows);
    CHECK_THROWS_WITH(o.validate(), Catch::Contains("ns_rows is \"" + rows.text()));
    o.bound = spectral_bound::aol;  // whose singular value of rank one is 1, too
    CHECK_THROWS_AS(o.validate(), bad_value);
    eigen_backend cpu(1);
    stored<double> x(4, 6);
    CHECK_THROWS_AS((orthogonalizer_plan<newton_schulz<>, eigen_backend, double>(cpu, o, x.v())), bad_value);
    CHECK_THROWS_AS((orthogonalizer_plan<nuclear_scaled<>, eigen_backend, double>(cpu, {o}, x.v())), bad_value);
    o.unchecked = true;
    CHECK_NOTHROW(o.validate());
  }
  // These end at 1 as polynomials of numbers, but products in float overflow or vanish on the way.
  CHECK_THROWS_WITH(newton_schulz<>::with_rows({{1e20, 0}, {1e-20, 0}}).validate(),
                    Catch::Contains("ns_rows is 1e+20"));
  CHECK_THROWS_WITH(newton_schulz<>::with_rows({{1e-30, 0}, {1.5e30, -0.5e90}}).validate(), Catch::Contains("ns_rows"));
  CHECK_THROWS_WITH(newton_schulz<>::with_rows({{1e5, 0}, {1e-5, 0}}).validate(),
                    Catch::Contains("ns_rows") && Catch::Contains("up to 10078") && Catch::Contains("at most 8"));
  CHECK_NOTHROW(newton_schulz<>::with_rows({{7, 0}, {1.0 / 7, 0}}).validate());
  newton_schulz<> turned = newton_schulz<>::with_rows(emerging);
  turned.unchecked = true;
  const mat y = orthogonalized(turned, rank_one), polar = top_k_polar(rank_one, 1);
  double along = 0;
  for (std::size_t i = 0; i < y.a.size(); ++i) along += y.a[i] * polar.a[i];
  CHECK(along < -0.9);  // what the check is there for
  // As many rows as steps.
  newton_schulz<> o = newton_schulz<>::with_rows({keller, keller});
  o.steps = 5;
  CHECK_THROWS_WITH(o.validate(), Catch::Contains("ns_rows is 2 rows") && Catch::Contains("ns_steps says 5"));
  o.steps = 1;
  CHECK_THROWS_WITH(o.validate(), Catch::Contains("ns_steps says 1"));
  o = newton_schulz<>::with_rows({{1.5, -std::numeric_limits<double>::infinity()}}), o.unchecked = true;
  CHECK_THROWS_WITH(o.validate(), Catch::Contains("ns_rows is -inf"));
}

TEST_CASE("what a table does to singular values, against many of them", "[newton_schulz][rows]") {
  const std::vector<std::vector<odd_polynomial>> tables{{detail::degree9_4_rows.begin(), detail::degree9_4_rows.end()},
                                                        {{2.3, -2.6, 1.7, -0.45}, {1.4, 0, 0, -0.5}},
                                                        {{2.4, -3, 2.6, -1.2, 0.22}, {1, 0.1}, {2, -1.5, 0.5}}};
  for (const auto& rows : tables) {
    const auto r = report_coefficients(rows, 0.01, 1);
    double low = 9, high = 0, sup = 0, slope = 1;
    for (int i = 1; i <= 100000; ++i) {
      double y = 1e-5 * i;
      for (const auto& p : rows) y = applied(p, y);
      sup = std::max(sup, y);
      if (i >= 1000) low = std::min(low, y), high = std::max(high, y);
    }
    for (const auto& p : rows) slope *= p.a;
    CHECK(r.ok);
    REQUIRE(r.steps.size() == rows.size());
    // The image of an image may be wider than the image by all steps.
    CHECK(r.steps.back().low == Approx(low).epsilon(1e-6));
    CHECK(r.steps.back().high == Approx(high).epsilon(1e-6));
    CHECK(r.sup == Approx(sup).epsilon(1e-6));
    CHECK(r.slope == slope);
  }
  CHECK_FALSE(report_coefficients(tables[0], 1e-3, 1, 1.0).ok);  // the limit is a number of the caller's
  CHECK_FALSE(report_coefficients(std::vector<odd_polynomial>{{1e20, 1e20}, {1e20, 1e20}}).ok);
  CHECK(report_coefficients(std::vector<odd_polynomial>{{1e20, 1e20}, {1e20, 1e20}}).steps.size() == 2);
}

// --- AOL ---

TEST_CASE("AOL divides rows, and leaves no singular value above 1", "[newton_schulz][aol]") {
  newton_schulz<> only = newton_schulz<>::with_rows({{1, 0}});  // nothing but the division
  only.bound = spectral_bound::aol, only.eps = 0;
  const auto by_hand = [](const mat& x) {
    mat y = x;
    for (index_t i = 0; i < x.rows; ++i) {
      double sum = 0;
      for (index_t j = 0; j < x.rows; ++j) {
        double a = 0;
        for (index_t k = 0; k < x.cols; ++k) a += x(i, k) * x(j, k);
        sum += std::abs(a);
      }
      for (index_t k = 0; k < x.cols; ++k) y(i, k) = sum > 0 ? x(i, k) / std::sqrt(sum) : 0;
    }
    return y;
  };
  for (mat x : {random_mat(5, 9, 1), random_mat(6, 6, 2), with_spectrum(4, 7, {3}, 2), mat(3, 4)}) {
    for (const double unequal : {1.0, 1e-7}) {
      for (index_t k = 0; k < x.cols; ++k) x(1, k) *= unequal;
      const mat y = orthogonalized(only, x);
      CHECK(largest(y - by_hand(x)) < 1e-13);
      CHECK(top_singular_value(y) < 1 + 1e-13);
      // The shorter side's lines; of a square matrix rows.
      if (x.rows != x.cols) CHECK(largest(orthogonalized(only, transposed(x)) - transposed(y)) < 1e-13);
      // Short rows are there in 16 bits, too, and whatever the size of the matrix.
      newton_schulz<float16> half = newton_schulz<float16>::with_rows({{1, 0}});
      half.bound = spectral_bound::aol;
      for (const double size : {1.0, 1e-20, 1e20}) {
        CHECK(largest(in_half(half, size * x) - y) < 4e-3);
        CHECK(largest(orthogonalized<float>(only, size * x) - y) < 1e-5);
      }
    }
  }
  // A row of zeros stays zero, and leaves the others alone.
  mat x = random_mat(4, 6, 5);
  for (index_t k = 0; k < 6; ++k) x(2, k) = 0;
  const mat y = orthogonalized(newton_schulz<>::preset(coefficient_set::turbo), x);
  for (index_t k = 0; k < 6; ++k) CHECK(y(2, k) == 0);
  CHECK(top_singular_value(y) < 1.15);
  // eps is a length of rows: far above them it divides them all alike.
  only.eps = 100;
  CHECK(largest(orthogonalized(only, x) - 0.01 * x) < 1e-15);
  // The margin of a set divides, too.
  newton_schulz<> express{.coefficients = coefficient_set::polar_express_1_02, .bound = spectral_bound::aol};
  const mat one = with_spectrum(1, 6, {5}, 2);
  CHECK(largest(orthogonalized(express, one) - (applied(express.coefficients, 5, 1 / 1.02) / 5) * one) < 1e-12);
}

// --- accuracy ---

TEST_CASE("distance to the polar factor of three spectra", "[newton_schulz]") {
  struct expectation {
    coefficient_set set;
    double error, most;
  };
  const auto inputs = three_spectra(64, 128);
  for (const auto& x : inputs) {
    const mat polar = top_k_polar(x, x.rows);
    const auto check = [&](const mat& y, double error, double most) {
      CHECK(polar_error(y, polar) < error);
      CHECK(top_singular_value(y) < most);
    };
    for (const auto& [set, error, most] :
         {expectation{coefficient_set::degree9_4, 0.01, 1.0115}, expectation{coefficient_set::degree9_3, 0.1, 1.124},
          expectation{coefficient_set::cans, 0.1, 1.1145}, expectation{coefficient_set::deepseek, 0.002, 1.002}})
      for (const auto form : both_forms) {
        CAPTURE(static_cast<int>(set), static_cast<int>(form), &x - inputs.data());
        newton_schulz<> o = newton_schulz<>::preset(set);
        o.form = form;
        check(orthogonalized<float>(o, x), error, most);
        newton_schulz<float16> half = newton_schulz<float16>::preset(set);
        half.form = form;
        check(in_half(half, x), error + 0.005, most + 0.02);
      }
  }
}

TEST_CASE("inputs of few directions stay bounded", "[newton_schulz]") {
  for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 7}, {7, 31}, {32, 64}, {31, 7}})
    for (const auto set : all_sets())
      for (const auto form : both_forms) {
        newton_schulz<> o = newton_schulz<>::preset(set);
        newton_schulz<float16> half = newton_schulz<float16>::preset(set);
        o.form = half.form = form;
        CAPTURE(static_cast<int>(set), static_cast<int>(form), m, n);
        const auto given = hard_inputs(m, n);
        for (const mat& y : together<eigen_backend, float>(o, given)) CHECK(top_singular_value(y) < 1.3);
        for (const mat& y : together<half_backend, float>(half, given)) CHECK(top_singular_value(y) < 1.3);
      }
}

TEST_CASE("many steps in the Gram form", "[newton_schulz]") {
  for (const auto& x : hard_inputs(7, 31))
    for (const auto& [set, steps] : {std::pair<coefficient_set, index_t>{coefficient_set::keller, 10},
                                     {coefficient_set::cubic, 40},
                                     {coefficient_set::polar_express, 8}}) {
      CAPTURE(static_cast<int>(set), x(0, 0));
      const newton_schulz<> o{.coefficients = set, .steps = steps, .form = newton_schulz_form::gram};
      CHECK(top_singular_value(orthogonalized<float>(o, x)) < 1.3);
    }
}

TEST_CASE("any set stays bounded in any number of steps, in float and by Gram matrices, too", "[newton_schulz]") {
  for (const coefficient_set set : all_sets())
    for (const index_t steps : {5, 6, 7, 8, 10, 12, 15, 20}) {
      if (set == coefficient_set::turbo || set == coefficient_set::flash) continue;  // behind AOL
      CAPTURE(enum_names(set)[static_cast<std::size_t>(set)], steps);
      for (const auto& [m, n] : {std::pair<index_t, index_t>{8, 5}, {64, 20}, {20, 64}})
        for (const newton_schulz_form form : {newton_schulz_form::automatic, newton_schulz_form::gram}) {
          mat equal_rows(m, n);
          for (index_t i = 0; i < m; ++i)
            for (index_t j = 0; j < n; ++j) equal_rows(i, j) = random_mat(1, n, 4)(0, j);
          const newton_schulz<float> o{.coefficients = set, .steps = steps, .form = form};
          for (const mat& y : together<eigen_backend, float>(
                   o, {with_spectrum(m, n, {3}, 1), with_spectrum(m, n, {3, 2, 1}, 2), equal_rows})) {
            const double size = largest(y);
            REQUIRE(size < 2);  // and no NaN
            CHECK(naive_svd(y).s[0] < 1.5);
          }
        }
    }
}

TEST_CASE("bfloat16: spectra that fall by decades stay bounded in the form that automatic takes", "[newton_schulz]") {
  std::vector<double> decades, few(48, 1e-2);
  for (int i = 0; i < 48; ++i) decades.push_back(std::pow(10.0, -std::min(i, 7)));
  for (std::size_t i = 0; i < 8; ++i) few[i] = 1;
  const std::vector<mat> given{with_spectrum(48, 192, decades, 6), with_spectrum(48, 192, few, 3),
                               gaussian(48, 192, 8)};
  for (const auto set : {coefficient_set::keller, coefficient_set::polar_express}) {
    const auto run = [&](newton_schulz_form form, index_t steps = 5) {
      return together<eigen_backend, float>(newton_schulz<bfloat16>{.coefficients = set, .steps = steps, .form = form},
                                            given);
    };
    const auto automatic = run(newton_schulz_form::automatic), standard = run(newton_schulz_form::standard),
               gram = run(newton_schulz_form::gram);
    const auto exact = together<eigen_backend, double>(newton_schulz<>{.coefficients = set}, given);
    const bool by_gram = set == coefficient_set::keller;
    for (std::size_t i = 0; i < given.size(); ++i) {
      CAPTURE(static_cast<int>(set), i);
      CHECK(same_bits(automatic[i].a, (by_gram ? gram : standard)[i].a));
      CHECK_FALSE(same_bits(gram[i].a, standard[i].a));
      if (by_gram || i == 0) CHECK(top_singular_value(automatic[i]) < 1.3);
      // About as near to the exact iteration as the standard form.
      if (by_gram) CHECK(frobenius(gram[i] - exact[i]) <= 2 * frobenius(standard[i] - exact[i]));
    }
    CHECK(same_bits(run(newton_schulz_form::automatic, 6)[0].a, run(newton_schulz_form::standard, 6)[0].a));
  }
}

namespace {
// As on a processor that multiplies bfloat16 faster, twice the arithmetic or not; and on one that does not.
struct narrowing_backend : eigen_backend {
  using eigen_backend::eigen_backend;
  bool prefers_bfloat16(double arithmetic) const { return arithmetic < 1.7; }
};
struct wide_backend : eigen_backend {
  using eigen_backend::eigen_backend;
  bool prefers_bfloat16(double) const { return false; }
};
}  // namespace

TEST_CASE("automatic: bfloat16 where the processor has it faster, and only what bears it", "[newton_schulz]") {
  struct expectation {
    index_t m, n;
    bool narrow;
    newton_schulz<> o{};
  };
  for (const auto& [m, n, narrow, o] : {expectation{128, 160, true},
                                        {160, 128, true},
                                        {127, 160, false},
                                        {128, 200, true},
                                        {128, 1024, false},  // the Gram form saves more in float
                                        {128, 160, false, newton_schulz<>::preset(coefficient_set::polar_express)},
                                        {128, 160, false, newton_schulz<>::preset(coefficient_set::degree9_4)},
                                        {128, 160, false, newton_schulz<>::preset(coefficient_set::deepseek)},
                                        {128, 160, false, {.steps = 6}},
                                        {128, 160, false, {.form = newton_schulz_form::gram}},
                                        {128, 160, false, {.bound = spectral_bound::schatten4}}}) {
    CAPTURE(m, n, narrow, static_cast<int>(o.coefficients));
    const std::vector<mat> given{random_mat(m, n, 3), 1e-20 * random_mat(m, n, 4), mat(m, n)};
    const auto got = together<narrowing_backend, float>(o, given), wide = together<wide_backend, float>(o, given),
               exact = together<wide_backend, double>(o, given);
    newton_schulz<bfloat16> in_bfloat16;
    in_bfloat16.coefficients = o.coefficients, in_bfloat16.steps = o.steps;
    in_bfloat16.form = o.form, in_bfloat16.bound = o.bound;
    const auto narrowed = together<eigen_backend, float>(in_bfloat16, given);
    for (std::size_t i = 0; i < given.size(); ++i) {
      CHECK(same_bits(got[i].a, (narrow ? narrowed : wide)[i].a));
      if (narrow) CHECK(largest(got[i] - exact[i]) <= tolerance<bfloat16>);
    }
  }
}

TEST_CASE("automatic, in double: always double", "[newton_schulz]") {
  const mat x = random_mat(130, 140, 5);
  CHECK(same_bits(together<narrowing_backend, double>(newton_schulz<>{}, {x})[0].a,
                  together<wide_backend, double>(newton_schulz<>{}, {x})[0].a));
}

// --- Schatten norms ---

TEST_CASE("Schatten norms scale X, and never too far", "[newton_schulz]") {
  for (const auto bound : {spectral_bound::schatten4, spectral_bound::schatten8})
    for (const auto set : all_sets())
      for (const auto& [m, n] : {std::pair<index_t, index_t>{1, 1}, {1, 7}, {7, 1}, {129, 127}, {40, 9}, {9, 40}})
        for (const auto form : both_forms) {
          newton_schulz<> o = newton_schulz<>::preset(set);
          o.form = form, o.bound = bound;
          const auto s = falling(m, n);
          const mat expected = with_spectrum(m, n, mapped(o, s), 7);
          CAPTURE(static_cast<int>(bound), static_cast<int>(set), static_cast<int>(form), m, n);
          CHECK(largest(orthogonalized(o, with_spectrum(m, n, s, 7)) - expected) < limit(form));
        }
  // One cubic step maps [0, 1] to [0, 1] and grows there: from its largest singular value the one before is known.
  for (const auto& x : {gaussian(96, 96, 3), random_mat(20, 1, 4) * random_mat(1, 30, 5), 1.0 * identity(50)})
    for (const auto bound : {spectral_bound::schatten4, spectral_bound::schatten8}) {
      const newton_schulz<float16> once{.coefficients = coefficient_set::cubic, .steps = 1, .bound = bound};
      CHECK(top_singular_value(in_half(once, x)) < 1.001);
    }
  const auto top = [](spectral_bound bound) {
    const newton_schulz<> once{.coefficients = coefficient_set::cubic, .steps = 1, .bound = bound};
    const mat x = gaussian(96, 96, 3);
    return top_singular_value(orthogonalized<float>(once, x));
  };
  CHECK(top(spectral_bound::frobenius) < 0.35);
  CHECK(top(spectral_bound::schatten4) > 0.7);
  CHECK(top(spectral_bound::schatten8) > 0.93);
  // A^2 of this one is 34.5 times the least number of float16.
  const index_t m = 697;
  const newton_schulz<float16> once{
      .coefficients = coefficient_set::cubic, .steps = 1, .bound = spectral_bound::schatten8};
  const double each = std::pow(static_cast<double>(m), -0.125);
  CHECK(in_half(once, identity(m))(0, 0) == Approx(applied(coefficient_set::cubic, 1, each)).epsilon(1e-3));
}

TEST_CASE("four quintics with a Schatten norm do better on a flat spectrum than five without", "[newton_schulz]") {
  const mat x = gaussian(96, 192, 6), polar = top_k_polar(x, 96);
  const auto error = [&](const mat& y) { return polar_error(y, polar); };
  CHECK(error(orthogonalized<float>(newton_schulz<>{.coefficients = coefficient_set::polar_express}, x)) > 0.05);
  for (const auto form : both_forms) {
    newton_schulz<> o = newton_schulz<>::preset(coefficient_set::quintic4);
    newton_schulz<float16> half = newton_schulz<float16>::preset(coefficient_set::quintic4);
    o.form = half.form = form;
    CHECK(error(orthogonalized<float>(o, x)) < 0.0125);
    CHECK(error(in_half(half, x)) < 0.0135);
  }
}

// --- the edges ---

TEST_CASE("new sets and norms: zero, huge, tiny, and eps", "[newton_schulz]") {
  const mat x = random_mat(6, 9, 2);
  for (const auto bound : {spectral_bound::frobenius, spectral_bound::schatten4, spectral_bound::schatten8})
    for (const auto set : {coefficient_set::cubic, coefficient_set::degree9_3, coefficient_set::degree9_4,
                           coefficient_set::quintic4, coefficient_set::cans})
      for (const auto form : both_forms) {
        CAPTURE(static_cast<int>(bound), static_cast<int>(set), static_cast<int>(form));
        newton_schulz<> o{.coefficients = set, .steps = usual_steps(set), .eps = 0, .form = form, .bound = bound};
        const mat expected = orthogonalized<float>(o, x);
        for (const double c : {1e-36, 1e-30, 1e30, 1e37})
          CHECK(largest(orthogonalized<float>(o, c * x) - expected) <
                (form == newton_schulz_form::gram ? gram_tolerance<float> : tolerance<float>));
        CHECK(largest(orthogonalized<float>(o, mat(4, 6))) == 0);
        o.eps = 1e-7;
        CHECK(largest(orthogonalized<float>(o, mat(4, 6))) == 0);
        for (const double c : {1e-37, 1e-20, 1e-12, 1e37}) CHECK(largest(orthogonalized<float>(o, c * x)) < 1.4);
        // eps is measured against the Frobenius norm: it is what small gradients are compared with.
        const std::vector<double> s{3e-7, 2e-7, 1e-7};
        CHECK(largest(orthogonalized(o, with_spectrum(5, 8, s, 1)) - with_spectrum(5, 8, mapped(o, s), 1)) < 1e-9);
      }
}

namespace {
// In parts of two matrices.
struct half_in_parts : half_backend {
  using half_backend::half_backend;
  template <class T>
  index_t product_batch(index_t, index_t, index_t) const {
    return 2;
  }
};
// The result, which may lie in u's memory or be handed on in parts, and the scratch that it took.
template <class B>
std::pair<std::vector<mat>, std::size_t> given_away(const newton_schulz<float16>& o, index_t m, index_t n, layout l,
                                                    index_t batch, std::uint64_t seed, bool hand_on = false) {
  B backend(1);
  auto memory = backend.allocate(std::size_t{1} << 23);
  arena scratch{memory.data()};
  pass<B, float> e(backend, scratch, nullptr, nullptr, batch, 1);
  const auto u = e.take(m, n, l == layout::column_major);
  stored<float> given(m, n, l, batch);
  given.fill_random(seed);
  e.for_each(fn::assign{}, u, given.cv());
  const std::size_t before = scratch.top;
  no_state none;
  std::vector<mat> out;
  const auto keep = [&](const auto& x, index_t from, index_t count) {
    CHECK(from == static_cast<index_t>(out.size()));
    for (index_t b = 0; b < count; ++b) out.push_back(to_mat(as_const(x).matrices(b, 1)));
  };
  const auto norm = detail::frobenius(e, u);
  if (hand_on)
    o.orthogonalize(e, none, u, norm, keep);
  else
    keep(o.orthogonalize(e, none, u, norm, detail::anywhere{}), 0, batch);
  return {out, scratch.peak - before};
}
}  // namespace

TEST_CASE("newton_schulz: what lies between the elements of u is not u's memory", "[newton_schulz]") {
  half_backend backend(1);
  auto memory = backend.allocate(std::size_t{1} << 20);
  arena scratch{memory.data()};
  pass<half_backend, float> e(backend, scratch, nullptr, nullptr, 3, 1);
  stored<float> u(12, 20, layout::sub_block, 3);
  u.fill_random(1);
  no_state none;
  newton_schulz<float16>{}.orthogonalize(e, none, u.v(), detail::frobenius(e, u.v()), detail::anywhere{});
  CHECK(u.intact());
}

TEST_CASE("newton_schulz: in 16 bits the iteration lives in u's memory, and gives the same bits as beside it",
          "[newton_schulz]") {
  constexpr index_t batch = 5;
  for (const auto& [m, n] : {std::pair<index_t, index_t>{16, 16}, {7, 29}, {29, 7}, {1, 1}, {24, 25}})
    for (const layout l : {layout::row_major, layout::column_major})
      for (const auto form : {newton_schulz_form::standard, newton_schulz_form::gram})
        for (const index_t steps : {1, 4, 5, 6}) {
          CAPTURE(m, n, name_of(l), static_cast<int>(form), steps);
          const newton_schulz<float16> o{.steps = steps, .form = form};
          std::vector<mat> given;
          stored<float> x(m, n, l, batch);
          x.fill_random(9);
          for (index_t b = 0; b < batch; ++b) given.push_back(to_mat(x.cv().matrices(b, 1)));
          const auto beside = together<half_backend, float>(o, given);
          const auto whole = given_away<half_backend>(o, m, n, l, batch, 9),
                     in_parts = given_away<half_in_parts>(o, m, n, l, batch, 9);
          for (std::size_t b = 0; b < given.size(); ++b) {
            CHECK(same_bits(whole.first[b].a, beside[b].a));
            CHECK(same_bits(in_parts.first[b].a, beside[b].a));
          }
          // Handed on in parts it is the same, and takes less.
          const auto handed_on = given_away<half_in_parts>(o, m, n, l, batch, 9, true);
          for (std::size_t b = 0; b < given.size(); ++b) CHECK(same_bits(handed_on.first[b].a, beside[b].a));
          // One matrix in 16 bits, and of the squares what does not fit beside another in u; besides, lines and
          // numbers.
          const auto line = [](index_t count) { return static_cast<std::size_t>((2 * count + 63) / 64 * 64); };
          const index_t k = std::min(m, n);
          const std::size_t room = static_cast<std::size_t>((4 * m * n + 63) / 64 * 64) - line(m * n);
          const std::size_t squares = form == newton_schulz_form::gram ? 4 : 2, fit = room / line(k * k);
          CHECK(whole.second <=
                batch * (line(m * n) + (squares - std::min(squares, fit)) * line(k * k)) + std::size_t{6} * 512);
          CHECK(handed_on.second <=
                2 * (line(m * n) + (squares - std::min(squares, fit)) * line(k * k)) + std::size_t{6} * 512);
        }
}
