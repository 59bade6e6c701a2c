// How many launches a step takes and how many bytes it moves, where every verb is a launch: what a GPU's time goes by.
// The table in docs/design.md is compared with what is counted here; run with MATOPT_WRITE_DOCS=1 to write it anew.
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "../support/matrices.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// The CPU's verbs, counted; for_rows, if it is there, is one launch and reads what it is given once, as on a GPU. Bytes
// are those of whole matrices: numbers per row or matrix and products do not count.
template <bool RowsAtOnce = true>
struct counting_backend : eigen_backend {
  struct counts {
    index_t launches = 0, bytes = 0;
  };
  counts seen{};
  index_t elements = 0;  // of the bucket

  counting_backend() : eigen_backend(1) {}

  template <class F, class... V>
  void for_each(const status_word* guard, F f, V... v) {
    eigen_backend::for_each(guard, f, v...);
    launch(v...);
  }
  template <class F, class T, class... V>
  void reduce(const status_word* guard, F f, view<T> out, V... v) {
    eigen_backend::reduce(guard, f, out, v...);
    launch(v...);
  }
  template <class F, class T, class... V>
  void reduce_rows(const status_word* guard, F f, view<T> out, V... v) {
    eigen_backend::reduce_rows(guard, f, out, v...);
    launch(v...);
  }
  template <class Sums, class T, class Numbers, class Elements>
  void for_rows(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers,
                const Elements& elements_of) requires RowsAtOnce {
    first_two(guard, sums, out, numbers);
    std::apply([&](auto... v) { eigen_backend::for_each(guard, elements_of.f, not_shared(v)...); }, elements_of.on);
    std::apply([&](auto... v) { launch(not_shared(v)...); }, std::tuple_cat(sums.on, elements_of.on));
  }
  template <class Sums, class T, class Numbers, class Elements, class U>
  void for_rows_and_reduce(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers,
                           const Elements& elements_of, view<U> total) requires RowsAtOnce {
    first_two(guard, sums, out, numbers);
    std::apply([&](auto... v) { eigen_backend::reduce(guard, elements_of.f, total, not_shared(v)...); },
               elements_of.on);
    std::apply([&](auto... v) { launch(not_shared(v)...); }, std::tuple_cat(sums.on, elements_of.on));
  }

 private:
  template <class Sums, class T, class Numbers>
  void first_two(const status_word* guard, const Sums& sums, view<T> out, const Numbers& numbers) {
    std::apply([&](auto... v) { eigen_backend::reduce_rows(guard, sums.f, out, not_shared(v)...); }, sums.on);
    std::apply([&](auto... v) { eigen_backend::for_each(guard, numbers.f, not_shared(v)...); }, numbers.on);
  }
  template <class... V>
  void launch(const V&... v) {
    std::set<const void*> reads, writes;
    (count(reads, writes, v), ...);
    ++seen.launches;
  }
  template <class T>
  void count(std::set<const void*>& reads, std::set<const void*>& writes, const view<T>& v) {
    if (v.rows * v.cols * v.batch != elements) return;
    const index_t size = elements * static_cast<index_t>(sizeof(T));
    if (reads.insert(v.base(0)).second) seen.bytes += size;
    if (!std::is_const_v<T> && writes.insert(v.base(0)).second) seen.bytes += size;  // outputs are read, too, here
  }
  template <class V>
  void count(std::set<const void*>&, std::set<const void*>&, const V&) {}
};

// Of one step of one bucket, after the first one.
template <bool RowsAtOnce = true, class Rule>
auto traffic(const Rule& rule, const optimizer_options& options = {}) {
  constexpr index_t m = 12, n = 20, batch = 3;
  using backend = counting_backend<RowsAtOnce>;
  backend cpu;
  stored<float> w(m, n, layout::row_major, batch), g(m, n, layout::row_major, batch);
  w.fill_random(1), g.fill_random(2);
  any_optimizer<backend> opt(cpu, rule, options);
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  opt.step(0.01);
  cpu.elements = m * n * batch, cpu.seen = {};
  opt.step(0.01);
  cpu.seen.bytes /= cpu.elements;
  return cpu.seen;
}

}  // namespace

TEST_CASE("a step's launches and bytes per parameter", "[traffic]") {
  // The check reads the gradient; then momentum and norm; Newton-Schulz' factors and its scale; the weight. Products
  // come besides.
  const auto plain = traffic(muon{});
  CHECK(plain.launches == 8);
  CHECK(plain.bytes == 48);
  // Muown reads the weight once more, for the direction's gradient, and advances Adam's corrections.
  const auto rows = traffic(muown{});
  CHECK(rows.launches == plain.launches + 1);
  CHECK(rows.bytes == plain.bytes + 4);
  const auto decayed = traffic(muown{.constraint = {.decay = 0.1, .decay_on = decay_target::magnitude}});
  CHECK(decayed.launches == rows.launches);
  CHECK(decayed.bytes == rows.bytes);
  // The check, which counts and remembers; the corrections; and all the rest in one pass.
  CHECK(traffic(adamw{}).launches == 5);
  CHECK(traffic(adamw{}).bytes == 4 + 28);
}

TEST_CASE("a gradient scale costs no launch and no byte where a formula takes it", "[traffic]") {
  const auto check = [](const auto& rule) {
    const auto with = traffic(rule, {.scales_gradient = true}), without = traffic(rule);
    CHECK(with.launches == without.launches);
    CHECK(with.bytes == without.bytes);
  };
  check(muon{}), check(muown{}), check(adamw{});
}

TEST_CASE("docs/design.md has the launches and bytes that are counted here", "[traffic]") {
  std::ostringstream table;
  const auto row = [&](const std::string& what, const auto& seen) {
    table << "| " << what << " | " << seen.launches << " | " << seen.bytes << " |\n";
  };
  table << "| of a step in float, without products | launches per bucket | bytes per parameter |\n|---|---|---|\n";
  row("Muon", traffic(muon{}));
  row("Muown, every verb apart", traffic<false>(muown{}));
  row("Muown, rows at once", traffic(muown{}));
  row("AdamW", traffic(adamw{}));

  const std::string path = MATOPT_SOURCE_DIR "/docs/design.md";
  const std::string begin = "<!-- traffic: begin -->\n", end = "<!-- traffic: end -->\n";
  std::stringstream page;
  page << std::ifstream(path).rdbuf();
  const std::string text = page.str();
  const auto from = text.find(begin), to = text.find(end);
  REQUIRE(from != std::string::npos);
  REQUIRE(to != std::string::npos);
  const auto at = from + begin.size();
  if (std::getenv("MATOPT_WRITE_DOCS"))
    std::ofstream(path) << text.substr(0, at) << table.str() << text.substr(to);
  else
    CHECK(text.substr(at, to - at) == table.str());
}
