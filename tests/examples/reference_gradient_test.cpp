// examples/small_gpt, the trainer: a rule that estimates from two gradients gets the batch's gradient at the weights
// before the last step, through clipping and through a checkpoint; QK-clip scales what it has to; and nothing is kept
// from step to step. The rules are this file's own.
#include <malloc.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include <matopt/adamw.hpp>
#include <matopt/policy/momentum/momentum.hpp>

#include "small_gpt/trainer.hpp"

namespace {

using namespace small_gpt;

// Moves by gradient - 2 reference, so that neither can stand in for the other.
struct difference {
  static constexpr bool needs_reference = true;
  struct combine {
    template <class T>
    MATOPT_HD void operator()(T& u, T g, T r) const {
      u = g - T(2) * r;
    }
  };
  static std::string name() { return "difference"; }
  template <class E, class St, class T, class C>
  void accumulate(E& e, St&, matopt::gradient_pair<T> g, matopt::view<C> u) const {
    e.for_each(combine{}, u, matopt::as_const<const T>(g), matopt::as_const(g.reference));
  }
};

struct folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("small_gpt-" + std::to_string(std::random_device{}()));
  folder() {
    std::filesystem::create_directories(path);
    std::ofstream text(path / "text");
    for (int i = 0; i < 2000; ++i) text << static_cast<char>('a' + i * i % 11);
  }
  ~folder() { std::filesystem::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

// Everything but the hidden matrices stands still, so that a step can be repeated by hand.
run_settings small_run(const folder& f, int iterations, double clip) {
  run_settings s;
  s.data = f / "text", s.architecture = "nanogpt", s.layers = 1, s.heads = 2, s.width = 8, s.context = 6;
  s.rule = "difference", s.lr = 3, s.other_lr = 1e-30, s.schedule = "constant", s.warmup = 0, s.clip = clip;
  s.batch = 4, s.iterations = iterations, s.eval_windows = 4;
  return s;
}

// Trains nothing; after each step it notes how much memory the program has allocated.
class idle_device : public device {
 public:
  explicit idle_device(std::vector<std::size_t>& allocated) : allocated_(&allocated) {}
  step_report train_step(std::span<const std::int32_t>, std::span<const std::int32_t>, double) override {
    const struct mallinfo2 m = ::mallinfo2();
    allocated_->push_back(m.uordblks + m.hblkhd);
    step_report report;
    report.loss = 1;
    return report;
  }
  double loss(std::span<const std::int32_t>, std::span<const std::int32_t>, matopt::index_t) override { return 1; }
  void observe_next_step() override {}
  std::vector<matrix_step> observed() override { return {}; }
  void download() override {}
  void upload() override {}
  void store(matopt::tensor_file& file) override { file.metadata["optimizer.steps"] = "1"; }
  void restore(const matopt::tensor_file&, bool) override {}
  std::string table() const override { return {}; }
  std::string signature() const override { return {}; }
  std::size_t state_bytes() const override { return 0; }
  std::size_t scratch_bytes() const override { return 0; }

 private:
  std::vector<std::size_t>* allocated_;
};

std::vector<float> weights_of(trainer& t) {
  const auto w = t.model().model.weights();
  return {w.begin(), w.end()};
}

}  // namespace

namespace small_gpt {

rule_book known_rules() {
  rule_book book;
  book.add<matopt::adamw>("adamw").add<matopt::adamw::with_momentum<difference>>("difference");
  return book;
}

}  // namespace small_gpt

TEST_CASE("small_gpt: a name means one rule, and can stand in a command and in the name of a folder", "[small_gpt]") {
  rule_book book;
  book.add<matopt::adamw>("adamw").add<matopt::adamw>("My_rule-2.0+");
  for (const char* name : {"adamw", "", "a=b", "a,b", "a/b", "..", "-a", "a b", "\xe9"}) {
    CAPTURE(name);
    CHECK_THROWS_AS(book.add<matopt::adamw>(name), matopt::bad_value);
  }
  CHECK(book.names().size() == 2);
}

TEST_CASE("small_gpt: the reference gradient is the batch's, at the weights before the last step", "[small_gpt]") {
  for (const double clip : {0.0, 0.5}) {
    CAPTURE(clip);
    const folder f;
    matopt::eigen_backend cpu(1);
    const run_settings s = small_run(f, 4, clip);
    trainer trained(s, cpu, f / "trained");

    // The same steps by hand, on the model of another trainer that starts alike.
    trainer fresh(s, cpu, f / "fresh");
    gpt<float>& model = fresh.model().model;
    std::vector<float> w = weights_of(fresh), before = w;
    const std::vector<float> start = w;
    REQUIRE(start == weights_of(trained));
    trained.run();

    std::vector<std::int32_t> tokens(24), targets(24);
    const auto gradient_at = [&](const std::vector<float>& at) {
      std::copy(at.begin(), at.end(), model.weights().begin());
      model.loss_and_gradient(cpu.pool(), tokens, targets, s.batch);
      return std::vector<double>(model.gradients().begin(), model.gradients().end());
    };
    int clipped = 0;
    for (int t = 0; t < s.iterations; ++t) {
      fresh.model().text().batch(s.seed, static_cast<std::uint64_t>(t), tokens, targets);
      const auto g = gradient_at(w);
      const auto r = t > 0 ? gradient_at(before) : std::vector<double>(g.size(), 0.0);
      double norm = 0;
      for (const double x : g) norm += x * x;
      norm = std::sqrt(norm);
      const double factor = clip > 0 && norm > clip ? clip / norm : 1;
      clipped += factor < 1;
      before = w;
      for (const auto& p : model.parameters())
        if (p.kind == tensor_role::hidden)
          for (auto i = static_cast<std::size_t>(p.value - model.weights().data()),
                    end = i + static_cast<std::size_t>(p.rows * p.cols);
               i < end; ++i)
            w[i] = static_cast<float>(static_cast<double>(w[i]) - s.lr * factor * (g[i] - 2 * r[i]));
    }
    CHECK((clipped > 0) == (clip > 0));
    const auto result = weights_of(trained);
    double error = 0, moved = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      error = std::max(error, static_cast<double>(std::abs(result[i] - w[i])));
      moved = std::max(moved, static_cast<double>(std::abs(result[i] - start[i])));
    }
    CHECK(moved > 1e-2);
    CHECK(error < 1e-5 * moved + 1e-6);
  }
}

TEST_CASE("small_gpt: a run with reference gradients continues bit for bit", "[small_gpt]") {
  const folder f;
  matopt::eigen_backend cpu(1);
  trainer whole(small_run(f, 6, 0), cpu, f / "whole");
  whole.run();
  trainer half(small_run(f, 3, 0), cpu, f / "half");
  half.run();
  auto file = matopt::tensor_file::load(half.checkpoint_path());
  for (const char* key : {"small_gpt.settings", "small_gpt.effective"}) {
    auto settings = nlohmann::json::parse(file.metadata.at(key));
    settings["iterations"] = 6;
    file.metadata[key] = settings.dump();
  }
  file.save(f / "longer");
  trainer resumed(f / "longer", "", cpu, f / "resumed");
  resumed.run();
  CHECK(weights_of(resumed) == weights_of(whole));

  REQUIRE(file.tensors.erase("previous." + half.model().model.parameters().back().name) == 1);
  file.save(f / "longer");
  CHECK_THROWS_WITH(trainer(f / "longer", "", cpu, f / "refused"), Catch::Contains("weights before its last step"));
}

TEST_CASE("small_gpt: the trainer keeps nothing from step to step", "[small_gpt]") {
  const folder f;
  matopt::eigen_backend cpu(1);
  run_settings s = small_run(f, 3000, 0);
  s.device = "cuda", s.eval_interval = 100, s.checkpoint_interval = 50, s.measure_interval = 100;
  std::vector<std::size_t> allocated;
  allocated.reserve(static_cast<std::size_t>(s.iterations));
  cuda_device_maker() = [&](auto&&...) { return std::make_unique<idle_device>(allocated); };
  trainer(s, cpu, f / "long").run();
  cuda_device_maker() = {};
  REQUIRE(allocated.size() == static_cast<std::size_t>(s.iterations));
  CAPTURE(allocated[500], allocated[1500], allocated.back());
  CHECK(allocated.back() <= allocated[500] + 1024);  // 0.4 bytes a step
}

TEST_CASE("small_gpt: QK-clip brings the logits of the batch to its threshold", "[small_gpt]") {
  const folder f;
  matopt::eigen_backend cpu(1);
  run_settings s = small_run(f, 1, 0);
  s.rule = "adamw", s.lr = 1e-30;  // all that changes the weights is the clip
  std::vector<std::int32_t> tokens(24), targets(24);
  const auto maxima = [&](trainer& t) {
    gpt<float>& model = t.model().model;
    model.measure_attention_logits();
    t.model().text().batch(s.seed, 0, tokens, targets);
    model.loss_and_gradient(cpu.pool(), tokens, targets, s.batch);
    const auto largest = model.largest_attention_logits();
    return std::vector<float>(largest.begin(), largest.end());
  };
  trainer fresh(s, cpu, f / "fresh");
  const std::vector<float> start = weights_of(fresh), before = maxima(fresh);
  REQUIRE(before.size() == 2);
  REQUIRE(before[0] > 0);
  REQUIRE(before[1] > 0);

  // One head above the threshold, both, none.
  const auto [low, high] = std::minmax(before[0], before[1]);
  for (const double threshold : {0.5 * (low + high), 1e-6, 2.0 * high}) {
    CAPTURE(threshold, low, high);
    s.qk_clip = threshold;
    trainer clipped(s, cpu, f / ("clipped" + std::to_string(threshold)).c_str());
    clipped.run();
    const std::vector<float> result = weights_of(clipped), after = maxima(clipped);
    const auto parameters = clipped.model().model.parameters();
    const auto qkv =
        std::find_if(parameters.begin(), parameters.end(), [](const auto& p) { return p.name == "layer0.qkv"; });
    const auto first = static_cast<std::size_t>(qkv->value - parameters.front().value);
    for (std::size_t i = 0; i < start.size(); ++i) {
      const std::size_t row = (i - first) / 8, head = row % 8 / 4;
      if (i >= first && row < 16 && before[head] > threshold)
        CHECK(result[i] == Approx(start[i] * std::sqrt(threshold / before[head])).epsilon(1e-6));
      else
        CHECK(result[i] == start[i]);
    }
    for (std::size_t head = 0; head < 2; ++head)
      CHECK(after[head] <= std::min<double>(threshold, before[head]) * (1 + 1e-5));

    std::ifstream log(f / ("clipped" + std::to_string(threshold) + "/log.jsonl").c_str());
    int steps = 0;
    for (std::string text; std::getline(log, text);)
      if (const auto line = nlohmann::json::parse(text); line.contains("loss")) {
        ++steps;
        CHECK(line.at("qk_max").get<float>() == high);
        CHECK(line.at("qk_clipped") == (before[0] > threshold) + (before[1] > threshold));
      }
    CHECK(steps == 1);
  }
  s.architecture = "modern";
  CHECK_THROWS_WITH(trainer(s, cpu, f / "refused"), Catch::Contains("--qk-clip") && Catch::Contains("nanogpt"));
}
