// What a training run does between steps: schedules, groups, gradients that move, experts without tokens, weights
// written from outside, parameters that come and go, clipping. Each block is a recipe of docs/training-recipes.md; the
// checks show that it does what the page says.
#include <array>
#include <cmath>
#include <cstdio>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/policy/schedule/setting.hpp>
#include <matopt/qk_clip.hpp>
#include <matopt/step_observer.hpp>
#include <vector>

using namespace matopt;

namespace {

constexpr index_t experts = 4, rows = 8, cols = 12;

// Stacked matrices, or one.
struct tensor {
  std::vector<float> data;
  index_t count;
  explicit tensor(float value, index_t n = 1) : data(static_cast<std::size_t>(n * rows * cols), value), count(n) {}
  view<float> all() { return row_major(data.data(), rows, cols, count); }
  float of(index_t b) const { return data[static_cast<std::size_t>(b * rows * cols)]; }
};
void fill(tensor& g, int seed) {
  for (std::size_t i = 0; i < g.data.size(); ++i)
    g.data[i] = std::sin(static_cast<float>(i) * 0.7F + static_cast<float>(seed));
}
bool check(bool good, const char* what) {
  if (!good) std::printf("failed: %s\n", what);
  return good;
}

}  // namespace

int main() {
  eigen_backend cpu(2);
  tensor moe(0.5F, experts), moe_gradient(0, experts), dense(0.5F), dense_gradient(0), router(0.5F), router_gradient(0);
  bool good = true;

  // Groups, each with a rule, a rate and schedules of its own; one norm for all.
  const cosine_rate rate{.warmup = 2, .total = 20, .floor = 0.1};
  param_groups<eigen_backend> opt(cpu, {.scales_gradient = true, .max_norm = 1.0});
  opt.add_group("hidden", muon{}, 0.02).add_group("rows", muown{}, 0.02).add_group("router", adamw{}, 3e-3);
  opt.add("experts", moe.all(), moe_gradient.all(), "hidden");
  opt.add("dense", dense.all(), dense_gradient.all(), "rows");
  opt.add("router", router.all(), router_gradient.all(), "router");
  opt.schedule("hidden", "momentum", piecewise_linear({{0, 0.85}, {8, 0.95}, {16, 0.95}, {20, 0.85}}));
  opt.schedule("router", "decay", [&](index_t t) { return 0.1 * rate.factor(t); });
  opt.finalize();

  const auto gradients = [&](int t) {
    fill(moe_gradient, t), fill(dense_gradient, 50 + t), fill(router_gradient, 90 + t);
  };
  const auto step = [&](int t, double loss_scale = 1) {
    gradients(t);
    opt.step(rate.factor(t), 1 / loss_scale);
  };
  step(0), step(1);
  good &= check(opt.gradient_norm() > 1, "the norm is that of all gradients");

  // Loss scale and accumulation are part of the norm.
  const double norm = opt.gradient_norm();
  step(1, 1024);
  good &= check(std::abs(opt.gradient_norm() * 1024 / norm - 1) < 1e-5, "the norm is that of the scaled gradients");

  // One setting, from the next step on.
  opt.set("router", "beta2", 0.99);
  step(2);

  // Gradients that lie elsewhere in this step, in the order of add(); a null pointer: no gradient, and no step.
  tensor other(0);
  fill(other, 7);
  const std::array<const float*, 3> now{moe_gradient.data.data(), other.data.data(), nullptr};
  opt.rebind(now);
  const float before = router.of(0);
  step(3);
  good &= check(router.of(0) == before, "what has no gradient stays");
  const std::array<const float*, 3> again{moe_gradient.data.data(), dense_gradient.data.data(),
                                          router_gradient.data.data()};
  opt.rebind(again);

  // Experts without tokens.
  opt.leave_out({"experts.1", "experts.3"});
  const float idle = moe.of(1), busy = moe.of(2);
  step(4);
  good &= check(moe.of(1) == idle && moe.of(2) != busy, "experts that are left out stay");
  opt.leave_out({});

  // A weight that the program writes itself: Muown keeps the norms of its rows.
  for (float& x : dense.data) x *= 0.5F;
  opt.resync("dense");
  const float halved = dense.of(0);
  gradients(5), opt.step(1e-9);
  good &= check(std::abs(dense.of(0) - halved) < 1e-5F, "what was written lasts");

  // Rows of queries and keys are scaled where a head's largest logit is above 100.
  tensor& query = dense;
  const view<float> key = moe.all().matrix(0);
  std::vector<float> largest_logits(4);
  qk_clip<eigen_backend> clip(cpu, {.heads = 4, .head_dim = 2}, row_major(largest_logits.data(), 4, 1));
  clip.add(query.all(), key);
  step(5);
  largest_logits = {20, 400, -3, 100};
  const std::vector<float> unclipped = query.data;
  clip();
  opt.resync();
  for (std::size_t i = 0; i < unclipped.size(); ++i) {
    const bool of_second = i / cols / 2 == 1;
    const float wanted = of_second ? unclipped[i] / 2 : unclipped[i];
    good &= check(std::abs(query.data[i] - wanted) <= 1e-6F * std::abs(wanted), "QK-clip: the second head is halved");
  }

  // Parameters that come and go; the others keep their state.
  tensor late(0.5F), late_gradient(0);
  opt.drop("router");
  opt.add("late", late.all(), late_gradient.all(), "hidden");
  opt.finalize();
  fill(late_gradient, 3);
  step(6);
  good &= check(late.of(0) != 0.5F && opt.steps() == 9, "a new parameter steps with the others");

  // What a step does to each matrix.
  step_observer look(opt);
  look.before();
  step(7);
  for (const step_observation& o : look.after())
    std::printf("%-10s |U| / |W| %.1e, cosine %.2f, sigma_1 %.2f\n", o.name.c_str(), o.update_to_weight, o.cosine,
                o.spectral_norm);

  good &= check(bool(opt.poll_status()), "no step was skipped");
  std::printf("%s%s\n", opt.table().c_str(), good ? "all as the recipes say" : "something is wrong");
  return good ? 0 : 1;
}
