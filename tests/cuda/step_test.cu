// Whole steps on the GPU: recorded and replayed, without allocation, the same bits every time, and refused where the
// memory or the stream is not what a step can use.
#include <catch2/catch.hpp>

#include <algorithm>
#include <thread>

#include <matopt/cuda/captured_step.cuh>
#include <matopt/numuon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/published_rules.hpp>

#include "device.cuh"

using namespace matopt;
using namespace matopt::test;

namespace MATOPT_NAMESPACE {
extern template void add_muon_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_normalized_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_adaptive_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_estimator_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_baseline_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_constrained_rules(rule_registry<cuda_backend, types<float>>&);
extern template void add_eigenbasis_rules(rule_registry<cuda_backend, types<float>>&);
}  // namespace MATOPT_NAMESPACE

namespace {

const rule_registry<cuda_backend, types<float>>& rules() {
  static const rule_registry<cuda_backend, types<float>> all = [] {
    rule_registry<cuda_backend, types<float>> r;
    add_published_rules(r);
    return r;
  }();
  return all;
}

// Three parameters of two shapes, with gradients that change from step to step.
struct problem {
  stream s;
  cuda_backend gpu{s.s};
  on_device<float> w{gpu, 24, 40, layout::row_major, 3}, g{gpu, 24, 40, layout::row_major, 3},
      r{gpu, 24, 40, layout::row_major, 3};
  on_device<float> w2{gpu, 56, 32}, g2{gpu, 56, 32}, r2{gpu, 56, 32};
  any_optimizer<cuda_backend> opt;

  template <class Make>
  explicit problem(Make make) : opt(make(gpu)) {
    w.host.fill_random(1, 0.5), w2.host.fill_random(2, 0.5), w.up(), w2.up();
    opt.add("w", w.v(), g.cv(), r.cv());
    opt.add("v", w2.v(), g2.cv(), r2.cv());
    opt.finalize();
  }
  void gradients(std::uint64_t t) {
    for (auto* x : {&g, &r}) x->host.fill_random(10 + t + (x == &r ? 500 : 0)), x->up();
    for (auto* x : {&g2, &r2}) x->host.fill_random(900 + t + (x == &r2 ? 500 : 0)), x->up();
  }
  std::vector<float> weights() {
    w.down(), w2.down();
    auto out = elements(w.host.cv());
    const auto more = elements(w2.host.cv());
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
};
auto published(const std::string& name) {
  return [name](cuda_backend& gpu) {
    std::vector<setting> settings;
    for (const setting& s : rules().settings(name))
      if (s.name == "rank_total") settings.push_back({"rank_total", "1"});  // has no default
    return rules().make(name, gpu, settings);
  };
}
double rate(int t) { return 0.02 / (1 + t); }

std::vector<float> eager(const std::string& name, int steps) {
  problem p(published(name));
  for (int t = 0; t < steps; ++t) p.gradients(static_cast<std::uint64_t>(t)), p.opt.step(rate(t));
  return p.weights();
}

}  // namespace

TEST_CASE("GPU: a recorded step replays as the eager one, for every rule, while the rate changes", "[cuda][slow]") {
  for (const auto& name : rules().names()) {
    CAPTURE(name);
    problem p(published(name));
    cuda::captured_step fast(p.opt);
    for (int t = 0; t < 20; ++t) p.gradients(static_cast<std::uint64_t>(t)), fast.step(rate(t));
    CHECK(same_bits(p.weights(), eager(name, 20)));
    CHECK(!fast.nodes().empty());
    CHECK(p.opt.poll_status());
  }
}

TEST_CASE("GPU: every rule takes finite steps", "[cuda][no_racecheck]") {
  for (const auto& name : rules().names()) {
    CAPTURE(name);
    for (const float w : eager(name, 2)) REQUIRE(math::finite(w));
  }
}

TEST_CASE("GPU: a replay whose numbers stay as they were is seen", "[cuda][no_racecheck]") {
  problem p(published("muown"));
  cuda::captured_step fast(p.opt);
  for (int t = 0; t < 20; ++t) p.gradients(static_cast<std::uint64_t>(t)), fast.step(rate(0));
  CHECK_FALSE(same_bits(p.weights(), eager("muown", 20)));
}

TEST_CASE("GPU: a changing rank is recorded anew, and rounding it up makes that rare", "[cuda][no_racecheck]") {
  const auto recordings = [](index_t multiple) {
    numuon rule;
    rule.constraint.rank_multiple = multiple;
    rule.constraint.rank = {.start = 1, .end = 0.25, .hold = 0, .total = 20};
    problem p([&](cuda_backend& gpu) { return any_optimizer<cuda_backend>(gpu, rule); });
    problem q([&](cuda_backend& gpu) { return any_optimizer<cuda_backend>(gpu, rule); });
    cuda::captured_step fast(p.opt);
    for (int t = 0; t < 30; ++t) {
      p.gradients(static_cast<std::uint64_t>(t)), q.gradients(static_cast<std::uint64_t>(t));
      fast.step(0.02), q.opt.step(0.02);
    }
    CHECK(same_bits(p.weights(), q.weights()));
    return fast.combinations();
  };
  const auto each = recordings(1), rounded = recordings(8);
  CHECK(rounded >= 3);
  CHECK(rounded < each);
}

TEST_CASE("GPU: a hundred steps allocate nothing, and two runs give the same bits", "[cuda][slow]") {
  for (const auto& name : rules().names()) {
    CAPTURE(name);
    problem p(published(name));
    for (int t = 0; t < 4; ++t) p.gradients(static_cast<std::uint64_t>(t)), p.opt.step(0.02);  // loads the kernels
    p.gpu.synchronize();
    std::size_t before = 0, after = 0, total = 0;
    cudaMemGetInfo(&before, &total);
    for (int t = 0; t < 100; ++t) p.opt.step(0.02);
    p.gpu.synchronize();
    cudaMemGetInfo(&after, &total);
    CHECK(before == after);
    CHECK(same_bits(eager(name, 6), eager(name, 6)));
  }
}

TEST_CASE("GPU: what memory() reports is what finalize() takes", "[cuda][alone]") {
  stream s;
  cuda_backend gpu(s.s);
  on_device<float> w(gpu, 2048, 1024, layout::row_major, 8), g(gpu, 2048, 1024, layout::row_major, 8);
  auto opt = rules().make("muon", gpu, {});
  opt.add("w", w.v(), g.cv());
  std::size_t before = 0, after = 0, total = 0;
  cudaMemGetInfo(&before, &total);
  const memory_report report = opt.memory();
  opt.finalize();
  cudaMemGetInfo(&after, &total);
  const std::size_t page = std::size_t{2} << 20;  // the driver deals memory out in pages, two buffers round up
  CHECK(before - after >= report.total());
  CHECK(before - after <= report.total() + 2 * page);
}

TEST_CASE("GPU: one step of GPT-2's matrices is some tens of launches", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  // The shapes matter, not the sizes: 48 + 12 + 12 matrices in three buckets.
  on_device<float> a(gpu, 48, 48, layout::row_major, 48), ga(gpu, 48, 48, layout::row_major, 48);
  on_device<float> b(gpu, 192, 48, layout::row_major, 12), gb(gpu, 192, 48, layout::row_major, 12);
  on_device<float> c(gpu, 48, 192, layout::row_major, 12), gc(gpu, 48, 192, layout::row_major, 12);
  auto opt = rules().make("muon", gpu, {});
  opt.add("a", a.v(), ga.cv()), opt.add("b", b.v(), gb.cv()), opt.add("c", c.v(), gc.cv());
  opt.finalize();
  cuda::captured_step fast(opt);
  fast.step(0.02), fast.step(0.02);
  REQUIRE(fast.nodes().size() == 1);
  CHECK(fast.nodes()[0] < 100);
}

TEST_CASE("GPU: memory that kernels cannot use is refused before anything is launched", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  auto opt = rules().make("muon", gpu, {});
  on_device<float> good(gpu, 8, 8);
  std::vector<float> host(64);
  float* pinned = nullptr;
  cudaMallocHost(&pinned, 64 * sizeof(float));
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(opt.add("w", row_major(host.data(), 8, 8), good.cv()),
                    Contains("weight of \"w\"") && Contains("host memory") && Contains("CUDA device"));
  CHECK_THROWS_WITH(opt.add("w", good.v(), row_major<const float>(host.data(), 8, 8)), Contains("gradient of \"w\""));
  CHECK_THROWS_WITH(opt.add("w", row_major(pinned, 8, 8), good.cv()), Contains("host memory"));
  CHECK_THROWS_WITH(opt.add("w", row_major(reinterpret_cast<float*>(reinterpret_cast<char*>(good.v().data) + 2), 7, 8),
                            good.cv().row_block(0, 7)),
                    Contains("multiple of 4"));
  CHECK(opt.size() == 0);
  cudaFreeHost(pinned);
}

TEST_CASE("GPU: a step cannot be recorded on the default stream", "[cuda]") {
  cuda_backend gpu;
  on_device<float> w(gpu, 8, 8), g(gpu, 8, 8);
  auto opt = rules().make("muon", gpu, {});
  opt.add("w", w.v(), g.cv());
  opt.finalize();
  CHECK_THROWS_WITH(cuda::captured_step(opt), Catch::Matchers::Contains("default stream"));
  opt.step(0.02);
  CHECK(opt.poll_status());
}

TEST_CASE("GPU: a recorded step cannot look at weights on the host, whenever that was asked for", "[cuda]") {
  using Catch::Matchers::Contains;
  stream s;
  cuda_backend gpu(s.s);
  on_device<float> w(gpu, 8, 8), g(gpu, 8, 8);
  param_groups<cuda_backend> groups(gpu);
  groups.add_group("first", rules().rule("muon", {}), 0.02);
  groups.add("w", w.v(), g.cv(), "first");
  groups.finalize();
  cuda::captured_step fast(groups);
  fast.step();
  groups.add_group("later", rules().rule("muown", {}), 0.02, {.check_copies = true});
  CHECK_THROWS_WITH(fast.step(), Contains("check_copies of captured_step"));
  CHECK(groups.steps() == 1);
  CHECK_THROWS_WITH(cuda::captured_step(groups), Contains("check_copies of captured_step"));
  groups.step();
  CHECK(groups.steps() == 2);
}

TEST_CASE("GPU: running out of memory says how much was asked for", "[cuda]") {
  stream s;
  cuda_backend gpu(s.s);
  CHECK_THROWS_WITH(gpu.allocate(std::size_t{1} << 50),
                    Catch::Matchers::Contains("out of memory") && Catch::Matchers::Contains("1125899906842624 bytes"));
  CHECK_NOTHROW(gpu.allocate(1024));  // and the backend is still good
}

TEST_CASE("GPU: an optimizer without enough memory says what each slot wanted, and can be used further",
          "[cuda][alone]") {
  stream s;
  cuda_backend gpu(s.s);
  // Two blocks of one matrix of terabytes, of which only the beginning is there: enough until a kernel runs.
  constexpr index_t n = index_t{1} << 19;
  const cuda_backend::buffer start = gpu.allocate(static_cast<std::size_t>(n + 1) * sizeof(float));
  const view<float> both = row_major(reinterpret_cast<float*>(start.data()), n, 2 * n);
  auto opt = rules().make("muon", gpu, {});
  opt.add("huge", both.col_block(0, n), as_const(both.col_block(n, n)));
  std::size_t before = 0, after = 0, total = 0;
  cudaMemGetInfo(&before, &total);
  const memory_report wanted = opt.memory();
  for (int i = 0; i < 2; ++i) {
    std::string text;
    try {
      opt.finalize();
    } catch (const out_of_memory& e) {
      text = e.what();
    }
    using Catch::Matchers::Contains;
    CHECK_THAT(text, Contains("CUDA: allocate: out of memory: " + std::to_string(wanted.state_bytes) + " bytes"));
    CHECK_THAT(text, Contains("momentum  momentum  " + std::to_string(4 * n * n) + "\n"));
    CHECK_THAT(text, Contains("scratch  " + std::to_string(wanted.scratch_bytes) + "\n"));
    CHECK_THROWS_AS(opt.step(0.02), bad_order);
  }
  cudaMemGetInfo(&after, &total);
  CHECK(before == after);
  CHECK(cudaGetLastError() == cudaSuccess);
  problem good(published("muon"));  // nothing has happened to the device
  good.gradients(0), good.opt.step(0.02);
  CHECK(good.opt.poll_status());
}

TEST_CASE("GPU: memory of another device is refused", "[cuda]") {
  int devices = 0;
  cudaGetDeviceCount(&devices);
  if (devices < 2) return;
  stream s;
  cuda_backend gpu(s.s);
  auto opt = rules().make("muon", gpu, {});
  on_device<float> good(gpu, 8, 8);
  float* elsewhere = nullptr;
  cuda::check(cudaSetDevice(1), "take the other device");
  cuda::check(cudaMalloc(&elsewhere, 64 * sizeof(float)), "allocate there");
  cuda::check(cudaSetDevice(0), "come back");
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(opt.add("w", row_major(elsewhere, 8, 8), good.cv()),
                    Contains("weight of \"w\"") && Contains("memory of CUDA device 1"));
  CHECK_THROWS_WITH(opt.add("w", good.v(), row_major<const float>(elsewhere, 8, 8)), Contains("gradient of \"w\""));
  CHECK(opt.size() == 0);
  cudaFree(elsewhere);
}

TEST_CASE("GPU: work waits for an event, and tells when it is done", "[cuda]") {
  stream first, second;
  cuda_backend a(first.s), b(second.s);
  on_device<float> x(a, 2000, 2000), total(b, 1, 1);
  x.host.fill([](index_t, index_t, index_t) { return 1; });
  x.up();
  cudaEvent_t written = nullptr;
  cudaEventCreate(&written);
  for (int i = 0; i < 50; ++i) a.for_each(nullptr, fn::multiple{1.0}, x.v(), x.cv());
  a.for_each(nullptr, fn::multiple{2.0}, x.v(), x.cv());
  a.record(written);
  b.wait(written);
  b.reduce(nullptr, fn::identity{}, total.v(), x.cv());
  total.down();
  CHECK(total.host(0, 0) == 8e6F);
  cudaEventDestroy(written);
}

TEST_CASE("GPU: bfloat16 weights with a master, and stochastic rounding", "[cuda]") {
  using mixed = types<bfloat16, bfloat16, float>;
  for (const auto mode : {rounding_mode::nearest, rounding_mode::stochastic}) {
    const auto run = [&](auto& backend, auto w, auto g, auto fill) {
      using B = std::remove_reference_t<decltype(backend)>;
      muon::with_constraint<master_weights<>> rule;
      rule.orthogonalizer.steps = 1;
      rule.constraint.rounding = mode;
      any_optimizer<B, mixed> opt(backend, rule);
      opt.add("w", w, g);
      opt.finalize();
      for (std::uint64_t t = 0; t < 4; ++t) fill(t), opt.step(0.01);
    };
    stream s;
    cuda_backend gpu(s.s);
    on_device<bfloat16> w(gpu, 24, 40), g(gpu, 24, 40);
    w.host.fill_random(1, 0.5), w.up();
    run(gpu, w.v(), g.cv(), [&](std::uint64_t t) { g.host.fill_random(5 + t), g.up(); });
    w.down();
    std::vector<double> seen;
    stored<bfloat16> start(24, 40);
    start.fill_random(1, 0.5);
    double moved = 0;
    for (index_t i = 0; i < 24; ++i)
      for (index_t j = 0; j < 40; ++j) {
        REQUIRE(math::finite(static_cast<float>(w.host(i, j))));
        moved = std::max(moved, std::abs(static_cast<double>(w.host(i, j)) - static_cast<double>(start(i, j))));
      }
    CHECK(moved > 1e-3);
    CHECK(moved < 0.1);
  }
}

TEST_CASE("GPU: after release() and finalize() a step is recorded anew", "[cuda]") {
  for (const char* name : {"muon", "adamw"}) {
    CAPTURE(name);
    problem p(published(name)), q(published(name));
    cuda::captured_step fast(p.opt);
    for (int round = 0; round < 3; ++round) {
      for (int t = 0; t < 4; ++t) {
        p.gradients(static_cast<std::uint64_t>(t)), q.gradients(static_cast<std::uint64_t>(t));
        fast.step(rate(t)), q.opt.step(rate(t));
      }
      CHECK(same_bits(p.weights(), q.weights()));
      CHECK(fast.nodes().size() == 1);
      CHECK(p.opt.poll_status());
      p.opt.release(), q.opt.release();
      CHECK_THROWS_AS(fast.step(0.02), bad_order);
      // Memory of others lies where the plan was: what is recorded must not write there.
      const cuda_backend::buffer other = p.gpu.allocate(p.opt.memory().total());
      p.opt.finalize(), q.opt.finalize();
      std::vector<std::byte> bytes(p.opt.memory().total());
      fast.step(0), fast.step(0), q.opt.step(0), q.opt.step(0);
      p.gpu.download(bytes.data(), other.data(), bytes.size());
      CHECK(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
      CHECK(same_bits(p.weights(), q.weights()));
    }
  }
}

TEST_CASE("GPU: a gradient scale of 0, NaN or infinity skips a recorded step", "[cuda]") {
  for (const auto mode : {on_nonfinite::skip_step, on_nonfinite::ignore}) {
    const auto make = [mode](cuda_backend& gpu) {
      return rules().make("muon", gpu, {}, {.nonfinite = mode, .scales_gradient = true});
    };
    problem p(make), q(make);
    cuda::captured_step fast(p.opt);
    for (int t = 0; t < 3; ++t) {
      p.gradients(static_cast<std::uint64_t>(t)), q.gradients(static_cast<std::uint64_t>(t));
      fast.step(rate(t), 0.5), q.opt.step(rate(t), 0.5);
      for (const double s : {0.0, std::nan(""), static_cast<double>(INFINITY)}) {
        const auto before = p.weights();
        fast.step(rate(t), s);
        CHECK(same_bits(before, p.weights()));
        p.opt.set_steps(p.opt.steps() - 1);
      }
      CHECK(same_bits(p.weights(), q.weights()));
    }
    const step_status status = p.opt.poll_status();
    CHECK(status.skipped == 9);
    CHECK(status.unusable_scales == 9);
    CHECK(status.parameters.empty());
  }
}

TEST_CASE("GPU: groups skip one step together, whichever of them looks", "[cuda]") {
  using group = any_optimizer<cuda_backend>;
  constexpr auto check = on_nonfinite::skip_step, ignore = on_nonfinite::ignore;
  for (const auto& [first, second] : {std::pair{check, check}, {check, ignore}, {ignore, check}}) {
    stream s;
    cuda_backend gpu(s.s);
    on_device<float> w(gpu, 8, 8), g(gpu, 8, 8), v(gpu, 3, 5), gv(gpu, 3, 5);
    param_groups<cuda_backend> groups(rules().make("muon", gpu, {}, {.nonfinite = first}), 0.02,
                                      rules().make("adamw", gpu, {}, {.nonfinite = second}), 0.01);
    groups.add("w", w.v(), g.cv(), role::hidden), groups.add("v", v.v(), gv.cv(), role::vector);
    groups.finalize();
    const auto step = [&](bool bad) {
      g.host.fill_random(1), gv.host.fill_random(2);
      if (bad) (first == check ? g : gv).host.v()(1, 1) = std::nanf("");
      g.up(), gv.up(), groups.step();
      w.down(), v.down();
      auto out = elements(w.host.cv());
      const auto more = elements(v.host.cv());
      out.insert(out.end(), more.begin(), more.end());
      return out;
    };
    const auto before = step(false);
    CHECK(same_bits(before, step(true)));
    for (int t = 0; t < 3; ++t) {
      const auto last = w.host(0, 0);
      step(false);
      CHECK(w.host(0, 0) != last);
    }
    CHECK(groups.poll_status().skipped == 1);
  }
  stream one, two;
  cuda_backend a(one.s), b(two.s);
  CHECK_THROWS_WITH((param_groups<cuda_backend>(rules().make("muon", a, {}), 0.02, rules().make("adamw", b, {}), 0.01)),
                    Catch::Matchers::Contains("backend of the second optimizer"));
}

TEST_CASE("GPU: empty shards are taken, and gradients may repeat elements", "[cuda]") {
  for (const char* name : {"muon", "adamw", "muown"}) {
    CAPTURE(name);
    problem p(published(name));
    p.opt.release();
    p.opt.add("empty", row_major<float>(nullptr, 0, 8), row_major<const float>(nullptr, 0, 8),
              row_major<const float>(nullptr, 0, 8));
    p.opt.add("stack", row_major<float>(nullptr, 8, 8, 0), row_major<const float>(nullptr, 8, 8, 0),
              row_major<const float>(nullptr, 8, 8, 0));
    on_device<float> w(p.gpu, 12, 20), g(p.gpu, 12, 20), w2(p.gpu, 12, 20), g2(p.gpu, 12, 20);
    w.host.fill_random(3), w.up(), w2.host.fill_random(3), w2.up();
    auto one_row = g.cv();
    one_row.row_stride = 0;
    p.opt.add("one_row", w.v(), one_row, one_row), p.opt.add("dense", w2.v(), g2.cv(), g2.cv());
    p.opt.finalize();
    cuda::captured_step fast(p.opt);
    for (int t = 0; t < 4; ++t) {
      g.host.fill_random(static_cast<std::uint64_t>(t) + 7);
      g2.host.fill([&](index_t, index_t j, index_t) { return static_cast<double>(g.host(0, j)); });
      g.up(), g2.up();
      fast.step(0.02);
    }
    CHECK(p.opt.poll_status());
    w.down(), w2.down();
    CHECK(largest(to_mat(w.host.cv()) - to_mat(w2.host.cv())) < 1e-4);
  }
}

TEST_CASE("GPU: a backend works on its device, whichever is current in the calling thread", "[cuda]") {
  int devices = 0;
  cudaGetDeviceCount(&devices);
  if (devices < 2) return;
  cuda::check(cudaSetDevice(1), "take the other device");
  {
    problem p(published("muon"));
    cuda::captured_step fast(p.opt);
    p.opt.release();
    std::vector<float> there, here;
    for (int t = 0; t < 4; ++t) {
      p.gradients(static_cast<std::uint64_t>(t));
      std::thread([&] {  // its current device is 0
        int current = -1;
        if (t == 0) p.opt.finalize();
        fast.step(rate(t));
        p.gpu.synchronize();
        cudaGetDevice(&current);
        CHECK(current == 0);
        cudaPointerAttributes a{};
        const cuda_backend::buffer memory = p.gpu.allocate(1000);
        cudaPointerGetAttributes(&a, memory.data());
        CHECK(a.device == 1);
      })
          .join();
    }
    cudaPointerAttributes a{};
    cudaPointerGetAttributes(&a, p.opt.state_tensors().front().data);
    CHECK(a.device == 1);
    there = p.weights();
    cuda::check(cudaSetDevice(0), "come back");
    here = eager("muon", 4);
    CHECK(same_bits(there, here));
    std::thread([&] { p.opt.release(); }).join();
  }
  int current = -1;
  cudaGetDevice(&current);
  CHECK(current == 0);
}
