// The libtorch adapter against the real library: what an optimizer of PyTorch does. Trajectories beside PyTorch's own
// optimizers are in python/tests; here the formula stands for them.
#include <ATen/ATen.h>
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <matopt/adamw.hpp>
#include <matopt/adapters/torch.hpp>
#include <matopt/adapters/torch/orthogonalize.hpp>
#include <matopt/mars_m.hpp>
#include <matopt/muown.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/state_conversion.hpp>
#include <matopt/state_io.hpp>
#include <matopt/torch_muon.hpp>
#include <nlohmann/json.hpp>

using namespace matopt;
using Catch::Matchers::Contains;

namespace {

using shapes = std::vector<std::vector<int64_t>>;
const shapes usual{{8, 12}, {12, 8}, {6, 6}, {4, 3, 2, 2}};

const torch_rules& rules() {
  static const torch_rules known = [] {
    rule_registry<eigen_backend> in_float;
    rule_registry<eigen_backend, types<double>> in_double;
    const auto add = [](auto& r) {
      r.template add<torch_muon>("torch_muon").template add<adamw>("adamw").template add<muown>("muown");
      r.template add<mars_m_exact>("mars_m_exact");
      r.template add<torch_muon_match_rms>("torch_muon_match_rms");
      r.template add<torch_muon::with_scale<spectral_ratio>>("torch_muon_spectral");
    };
    add(in_float), add(in_double);
    torch_rules out;
    out.add(in_float).add(in_double);
    return out;
  }();
  return known;
}
at::Tensor filled(at::IntArrayRef sizes, int seed, at::ScalarType type) {
  at::Tensor t = at::empty(sizes, at::kDouble);
  auto* x = t.data_ptr<double>();
  for (int64_t i = 0; i < t.numel(); ++i) x[i] = std::sin(0.7 * static_cast<double>(i * i) + 1.3 * seed + 0.1);
  return t.to(type);
}
std::vector<at::Tensor> parameters(at::ScalarType type = at::kDouble, const shapes& all = usual) {
  std::vector<at::Tensor> out;
  for (const auto& s : all) out.push_back(filled(s, static_cast<int>(out.size()), type).set_requires_grad(true));
  return out;
}
void give(std::vector<at::Tensor>& all, int step) {
  int seed = 100 + 10 * step;
  for (auto& p : all) p.mutable_grad() = filled(p.sizes(), seed++, p.scalar_type());
}
void run(torch_optimizer& opt, std::vector<at::Tensor>& all, int steps, int first = 0) {
  for (int t = first; t < first + steps; ++t) give(all, t), opt.step();
}
bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!a[i].equal(b[i])) return false;
  return true;
}
// By group: rule and rate of all tensors.
struct one_group {
  std::vector<at::Tensor> all;
  torch_optimizer opt{rules()};
  explicit one_group(std::vector<at::Tensor> p, const char* rule = "torch_muon", torch_group g = {})
      : all(std::move(p)) {
    g.params = all, g.rule = rule;
    if (!g.lr) g.lr = 0.02;
    opt.add_param_group(g);
  }
  void go(int steps, int first = 0) { run(opt, all, steps, first); }
};

void muon_formula(at::Tensor& w, at::Tensor& m, const at::Tensor& g, double lr, double decay) {
  m.mul_(0.95).add_(g, 0.05);
  at::Tensor x = (0.05 * g + 0.95 * m).reshape({w.size(0), -1});
  const bool tall = x.size(0) > x.size(1);
  const double scale = std::sqrt(std::fmax(1.0, static_cast<double>(x.size(0)) / static_cast<double>(x.size(1))));
  if (tall) x = x.t();
  x = x / std::fmax(x.norm().item<double>(), 1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor a = x.matmul(x.t());
    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a.matmul(a)).matmul(x);
  }
  if (tall) x = x.t();
  w.mul_(1 - lr * decay).sub_(x.reshape(w.sizes()), lr * scale);
}

}  // namespace

TEST_CASE("torch_muon on tensors is the formula in double", "[torch]") {
  one_group ours(parameters());
  std::vector<at::Tensor> w, m;
  for (const auto& p : ours.all) w.push_back(p.detach().clone()), m.push_back(at::zeros_like(w.back()));
  for (int t = 0; t < 50; ++t) {
    ours.go(1, t);
    for (std::size_t i = 0; i < w.size(); ++i) muon_formula(w[i], m[i], ours.all[i].grad(), 0.02, 0.1);
  }
  for (std::size_t i = 0; i < w.size(); ++i)
    CHECK(((ours.all[i].detach() - w[i]).abs().max() / w[i].abs().max()).item<double>() < 1e-12);
}

// torch_trajectories.py: what PyTorch 2.15 makes of the same gradients. Its Muon runs in bfloat16.
TEST_CASE("trajectories of PyTorch's own optimizers", "[torch]") {
  std::ifstream file(MATOPT_TORCH_TRAJECTORIES);
  const auto made = nlohmann::json::parse(file);
  for (const char* rule : {"torch_muon", "torch_muon_match_rms", "torch_muon_spectral", "adamw"}) {
    CAPTURE(rule);
    const bool adam = std::string(rule) == "adamw";
    torch_group g{.params = {}, .rule = {}, .lr = adam ? 3e-3 : 0.02, .settings = {{"decay", "0.1"}}};
    one_group ours(parameters(at::kFloat, {{12, 8}, {8, 12}}), rule, g);
    const auto start = parameters(at::kFloat, {{12, 8}, {8, 12}});
    for (int t = 0; t < 50; ++t) {
      ours.go(1, t);
      const auto at_step = made.at(rule).find(std::to_string(t + 1));
      if (at_step == made.at(rule).end()) continue;
      for (std::size_t i = 0; i < start.size(); ++i) {
        auto numbers = at_step->at(i).get<std::vector<float>>();
        const at::Tensor theirs = at::from_blob(numbers.data(), start[i].sizes());
        const double moved = (theirs - start[i].detach()).norm().item<double>();
        const double apart = (theirs - ours.all[i].detach()).norm().item<double>();
        CHECK(apart < (adam ? 3e-5 : 0.02) * moved);
      }
    }
  }
}

TEST_CASE("a parameter without a gradient is left out", "[torch]") {
  one_group some(parameters()), all_of(parameters());
  for (int t = 0; t < 4; ++t) {
    give(some.all, t), give(all_of.all, t);
    const at::Tensor before = some.all[1].detach().clone();
    if (t == 1 || t == 2) some.all[1].mutable_grad() = at::Tensor();
    some.opt.step(), all_of.opt.step();
    if (t == 1 || t == 2) CHECK(some.all[1].equal(before));
  }
  CHECK(some.all[0].equal(all_of.all[0]));
  CHECK_FALSE(some.all[1].equal(all_of.all[1]));
  some.opt.zero_grad(false);
  CHECK(some.all[0].grad().abs().sum().item<double>() == 0);
  some.opt.zero_grad();
  CHECK_FALSE(some.all[0].grad().defined());
}

TEST_CASE("gradients and parameters of any strides", "[torch]") {
  one_group odd(parameters()), plain(parameters());
  for (int t = 0; t < 6; ++t) {
    give(odd.all, t);
    for (std::size_t i = 0; i < odd.all.size(); ++i) {
      at::Tensor& g = odd.all[i].mutable_grad();
      if (t % 3 == 0) g = g.slice(0, 0, 1).expand(g.sizes());
      if (t % 3 == 1) g = g.transpose(0, 1).contiguous().transpose(0, 1);
      plain.all[i].mutable_grad() = g.contiguous().clone();
    }
    if (t == 2) odd.all[0].set_data(odd.all[0].detach().clone());
    if (t == 4) odd.all[1].set_data(odd.all[1].detach().t().contiguous().t());
    odd.opt.step(), plain.opt.step();
  }
  CHECK(same(odd.all, plain.all));
  // channels_last
  auto last = parameters();
  last[3] = last[3].detach().contiguous(at::MemoryFormat::ChannelsLast).set_requires_grad(true);
  one_group by_channels(last), usual_order(parameters());
  by_channels.go(3), usual_order.go(3);
  CHECK(same(by_channels.all, usual_order.all));
}

TEST_CASE("gradients may share memory with each other and with weights", "[torch]") {
  one_group sharing(parameters()), apart(parameters());
  const at::Tensor pool = filled({200}, 5, at::kDouble);
  for (int t = 0; t < 3; ++t) {
    give(sharing.all, t), give(apart.all, t);
    sharing.all[0].mutable_grad() = pool.slice(0, 3, 99).view({8, 12});
    sharing.all[1].mutable_grad() = pool.slice(0, t, 96 + t).view({12, 8});
    sharing.all[2].mutable_grad() = sharing.all[2].detach();
    sharing.all[3].mutable_grad() = pool.slice(0, t, 48 + t).view({4, 3, 2, 2});
    if (t == 2) {  // two within a third one
      sharing.all[1].mutable_grad() = filled({12, 8}, 7, at::kDouble);
      sharing.all[2].mutable_grad() = pool.slice(0, 10, 46).view({6, 6});
      sharing.all[3].mutable_grad() = pool.slice(0, 50, 98).view({4, 3, 2, 2});
    }
    for (std::size_t i = 0; i < apart.all.size(); ++i) apart.all[i].mutable_grad() = sharing.all[i].grad().clone();
    sharing.opt.step(), apart.opt.step();
    CHECK(same(sharing.all, apart.all));
  }
}

TEST_CASE("rates and settings of groups", "[torch]") {
  auto hidden = parameters(), others = parameters(at::kFloat, {{5}, {}, {3, 4}});
  torch_optimizer both(rules());
  both.add_param_group({.params = hidden, .rule = "torch_muon", .lr = 0.02, .settings = {{"decay", "0"}}});
  both.add_param_group({.params = others, .rule = "adamw"});
  CHECK(both.groups()[1].lr == 1e-3);
  one_group one(parameters(), "torch_muon", {.params = {}, .rule = {}, .settings = {{"weight_decay", "0"}}});
  one_group two(parameters(at::kFloat, {{5}, {}, {3, 4}}), "adamw", {.params = {}, .rule = {}, .lr = 1e-3});
  for (int t = 0; t < 6; ++t) {
    if (t == 3)
      both.groups()[0].lr = one.opt.groups()[0].lr = 0.005, both.set(1, "beta2", "0.9"), two.opt.set(0, "beta2", "0.9");
    give(hidden, t), give(others, t);
    both.step(), one.go(1, t), two.go(1, t);
  }
  CHECK(same(hidden, one.all));
  CHECK(same(others, two.all));
  both.groups()[0].lr = std::nan("");
  CHECK_THROWS_WITH(both.step(), Contains("lr of group 0 is nan"));
  CHECK_THROWS_WITH(both.set(0, "momentum", "2"), Contains("momentum is 2; legal: [0, 1)"));
  both.groups()[0].lr = 0.005;
  run(both, hidden, 1, 6);
  one.go(1, 6);
  CHECK(same(hidden, one.all));
}

TEST_CASE("an embedding or a head goes to a matrix rule only if that is confirmed", "[torch]") {
  torch_optimizer opt(rules());
  const auto add = [&](const char* name, std::vector<std::int64_t> shape, const char* rule, bool confirmed) {
    opt.add_param_group({.params = {at::zeros(shape).set_requires_grad(true)},
                         .rule = rule,
                         .lr = 0.02,
                         .confirmed = confirmed,
                         .names = {name}});
  };
  CHECK_THROWS_WITH(add("wte", {16, 8}, "torch_muon", false), Contains("\"wte\"") && Contains("embedding"));
  CHECK_THROWS_WITH(add("lm_head.weight", {16, 8}, "torch_muon", false), Contains("output head"));
  CHECK_THROWS_WITH(add("any", {8, 8192}, "torch_muon", false), Contains("confirmed"));
  CHECK(opt.size() == 0);
  add("wte", {16, 8}, "torch_muon", true), add("lm_head.weight", {16, 8}, "adamw", false);
  add("conv", {8, 1024, 3, 3}, "torch_muon", false);
  CHECK(opt.size() == 3);
}

TEST_CASE("groups that come late keep the others' state", "[torch]") {
  one_group ours(parameters(at::kFloat)), plain(parameters(at::kFloat));
  auto late = parameters(at::kFloat, {{7, 3}, {3}});
  ours.go(3), plain.go(3);
  ours.opt.add_param_group({.params = late, .rule = "adamw", .lr = 0.1});
  const at::Tensor before = late[1].detach().clone();
  give(late, 0);
  ours.go(3, 3), plain.go(3, 3);
  CHECK(same(ours.all, plain.all));
  CHECK_FALSE(late[1].equal(before));
}

TEST_CASE("what is refused changes nothing", "[torch]") {
  one_group ours(parameters()), plain(parameters());
  ours.go(2), plain.go(2);
  give(ours.all, 2);
  ours.all[2].mutable_grad() = ours.all[2].grad().to_sparse();
  CHECK_THROWS_WITH(ours.opt.step(), Contains("gradient of \"param.2\" is sparse"));
  ours.all[2].mutable_grad() = at::Tensor();
  const at::Tensor data = ours.all[2].variable_data();
  ours.all[2].set_data(at::zeros({5, 5}, at::kDouble));
  CHECK_THROWS_WITH(ours.opt.step(), Contains("shape of \"param.2\" is (5, 5)"));
  ours.all[2].set_data(data.to(at::kFloat));
  CHECK_THROWS_WITH(ours.opt.step(), Contains("type of \"param.2\" is Float"));
  ours.all[2].set_data(data);
  auto& opt = ours.opt;
  CHECK_THROWS_WITH(opt.add_param_group({.params = {ours.all[2]}, .rule = "adamw"}), Contains("another group"));
  CHECK_THROWS_WITH(opt.add_param_group({.params = parameters(at::kFloat, {{4}}), .rule = "torch_muon"}),
                    Contains("steps matrices"));
  CHECK_THROWS_WITH(opt.add_param_group({.params = {ours.all[2] * 2}, .rule = "adamw"}), Contains("leaf"));
  CHECK_THROWS_WITH(opt.add_param_group({.params = {at::zeros({2, 2}, at::kInt)}, .rule = "adamw"}), Contains("Int"));
  CHECK_THROWS_WITH(opt.add_param_group({.params = {}, .rule = "adamw"}), Contains("at least 1"));
  CHECK_THROWS_WITH(opt.add_param_group({.params = parameters(), .rule = "adamv"}), Contains("nearest: \"adamw\""));
  CHECK_THROWS_WITH(opt.add_param_group({.params = parameters(), .rule = "adamw", .names = {"a"}}), Contains("names"));
  const at::Tensor wide = at::zeros({4, 4}, at::kDouble);
  torch_optimizer overlapping(rules());
  std::vector<at::Tensor> parts{wide.slice(0, 0, 3).detach(), wide.slice(0, 2, 4).detach()};
  overlapping.add_param_group({.params = parts, .rule = "torch_muon"});
  give(parts, 0);
  CHECK_THROWS_WITH(overlapping.step(), Contains("shared"));
  parts[1].set_data(parts[1].variable_data().clone());
  overlapping.step();
  CHECK(parts[0].abs().sum().item<double>() > 0);
  CHECK(parts[1].abs().sum().item<double>() > 0);
  ours.go(2, 2), plain.go(2, 2);
  CHECK(same(ours.all, plain.all));
  CHECK(opt.groups().size() == 1);
  CHECK(opt.size() == 4);
}

TEST_CASE("the same tensor twice in a group is one parameter; one without elements is none", "[torch]") {
  auto p = parameters(), q = parameters();
  torch_optimizer twice(rules());
  twice.add_param_group(
      {.params = {p[0], p[0], at::zeros({0, 4}).set_requires_grad(true)}, .rule = "torch_muon", .lr = 0.02});
  CHECK(twice.size() == 2);
  one_group once({q[0]});
  std::vector<at::Tensor> first{p[0]};
  run(twice, first, 3), once.go(3);
  CHECK(p[0].equal(q[0]));
}

TEST_CASE("sixteen bits, with and without masters", "[torch]") {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    one_group half(parameters(type)),
        masters(parameters(type), "torch_muon", {.params = {}, .rule = {}, .master_weights = true});
    std::vector<at::Tensor> wide;
    for (const auto& p : half.all) wide.push_back(p.detach().to(at::kFloat).set_requires_grad(true));
    one_group exact(wide);
    for (int t = 0; t < 3; ++t) {
      give(half.all, t), give(masters.all, t);
      for (std::size_t i = 0; i < wide.size(); ++i) wide[i].mutable_grad() = half.all[i].grad().to(at::kFloat);
      half.opt.step(), masters.opt.step(), exact.opt.step();
      for (std::size_t i = 0; i < wide.size(); ++i) {
        CHECK(masters.all[i].equal(wide[i].to(type)));
        if (t == 0) CHECK(half.all[i].equal(wide[i].to(type)));
      }
    }
    CHECK_FALSE(same(half.all, masters.all));
    // A checkpoint holds the masters.
    one_group again(parameters(type), "torch_muon", {.params = {}, .rule = {}, .master_weights = true});
    again.opt.load_state(masters.opt.state(), masters.opt.steps());
    masters.go(2, 3), again.go(2, 3);
    CHECK(same(masters.all, again.all));
  }
}

TEST_CASE("what is kept since a step in inference mode can be written after it", "[torch]") {
  one_group ours(parameters(at::kBFloat16), "mars_m_exact", {.params = {}, .rule = {}, .master_weights = true});
  one_group plain(parameters(at::kBFloat16), "mars_m_exact", {.params = {}, .rule = {}, .master_weights = true});
  for (auto* group : {&ours, &plain}) {
    give(group->all, 0);
    const c10::InferenceMode mode(group == &ours);
    group->opt.step();
  }
  for (auto* group : {&ours, &plain}) {
    give(group->all, 1);
    for (auto& p : group->all) {
      const at::NoGradGuard no_grad;
      p.mul_(0.5);
      group->opt.set_reference(p, p.grad());
    }
    group->opt.step();
  }
  CHECK(same(ours.all, plain.all));
}

TEST_CASE("a model that becomes one of sixteen bits has masters from then on", "[torch]") {
  one_group later(parameters(at::kFloat), "adamw", {.params = {}, .rule = {}, .lr = 1e-5, .master_weights = true});
  one_group exact(parameters(at::kFloat), "adamw", {.params = {}, .rule = {}, .lr = 1e-5});
  later.go(2), exact.go(2);
  for (auto* group : {&later, &exact})
    for (auto& p : group->all) {
      const at::Tensor rounded = p.detach().to(at::kBFloat16);
      p.mutable_grad() = at::Tensor();
      p.set_data(group == &later ? rounded : rounded.to(at::kFloat));
    }
  for (int t = 2; t < 40; ++t) {
    give(later.all, t), give(exact.all, t);
    for (std::size_t i = 0; i < exact.all.size(); ++i) exact.all[i].mutable_grad() = later.all[i].grad().to(at::kFloat);
    later.opt.step(), exact.opt.step();
  }
  for (std::size_t i = 0; i < exact.all.size(); ++i) CHECK(later.all[i].equal(exact.all[i].detach().to(at::kBFloat16)));
}

TEST_CASE("checkpoints by state_io.hpp and by tensors", "[torch]") {
  const std::string path = "torch_adapter_state.safetensors";
  for (const char* rule : {"torch_muon", "muown"}) {
    one_group ours(parameters(), rule), by_file(parameters(), rule), by_tensors(parameters(), rule);
    ours.go(5);
    save_state(ours.opt, path);
    for (one_group* other : {&by_file, &by_tensors})
      for (std::size_t i = 0; i < ours.all.size(); ++i) other->all[i].detach().copy_(ours.all[i].detach());
    by_file.opt.prepare();
    load_state(by_file.opt, path);
    by_tensors.opt.load_state(ours.opt.state(), ours.opt.steps());
    ours.go(4, 5), by_file.go(4, 5), by_tensors.go(4, 5);
    CHECK(same(ours.all, by_file.all));
    CHECK(same(ours.all, by_tensors.all));
    auto bad = ours.opt.state();
    bad[2].begin()->second = at::zeros({3});
    CHECK_THROWS_WITH(by_tensors.opt.load_state(bad, 9), Contains("\"param.2\" is of shape (3)"));
    bad = ours.opt.state();
    bad[1].emplace("more", at::zeros({3}));
    CHECK_THROWS_WITH(by_tensors.opt.load_state(bad, 9), Contains("\"more\" of \"param.1\""));
    ours.go(1, 9), by_tensors.go(1, 9);
    CHECK(same(ours.all, by_tensors.all));
  }
  std::remove(path.c_str());
}

TEST_CASE("a checkpoint of two groups", "[torch]") {
  const std::string path = "torch_adapter_groups.safetensors";
  // A stack and a matrix by one rule each, and a vector.
  struct two_groups {
    std::vector<at::Tensor> all = parameters(at::kFloat, {{3, 6, 4}, {8, 6}, {6}});
    torch_optimizer opt{rules()};
    two_groups() {
      opt.add_param_group({.params = {all[0]}, .rule = "torch_muon", .lr = 0.02, .stacked = true, .names = {"stack"}});
      opt.add_param_group({.params = {all[1], all[2]}, .rule = "adamw", .lr = 0.02, .names = {"matrix", "vector"}});
    }
  } ours, again;
  run(ours.opt, ours.all, 5);
  save_state(ours.opt, path);
  for (std::size_t i = 0; i < ours.all.size(); ++i) again.all[i].detach().copy_(ours.all[i].detach());
  CHECK_THROWS_WITH(load_state(again.opt, path), Contains("in the file only"));  // it has no state yet
  again.opt.prepare();
  load_state(again.opt, path);
  CHECK(again.opt.steps() == 5);
  run(ours.opt, ours.all, 4, 5), run(again.opt, again.all, 4, 5);
  CHECK(same(ours.all, again.all));

  // Under the other rule: refused, with nothing changed; and left out where a part will do.
  struct rules_of {
    std::vector<at::Tensor> all = parameters(at::kFloat, {{3, 6, 4}, {8, 6}});
    torch_optimizer opt{rules()};
    rules_of(const char* stack, const char* matrix) {
      opt.add_param_group({.params = {all[0]}, .rule = stack, .lr = 0.02, .stacked = true, .names = {"stack"}});
      opt.add_param_group({.params = {all[1]}, .rule = matrix, .lr = 0.02, .names = {"matrix"}});
    }
  } first("torch_muon", "torch_muon_spectral"), other("torch_muon_spectral", "torch_muon");
  run(first.opt, first.all, 3);
  save_state(first.opt, path);
  run(other.opt, other.all, 1);
  const auto before = other.opt.state();
  const auto unchanged = [&](std::size_t i) {
    const auto now = other.opt.state()[i];
    for (const auto& [name, t] : before[i])
      if (!t.equal(now.at(name))) return false;
    return true;
  };
  CHECK_THROWS_WITH(load_state(other.opt, path), Contains("rule of stack.1: file") && Contains("rule of matrix: file"));
  CHECK((unchanged(0) && unchanged(1)));
  const auto report = load_state(other.opt, path, {.other_settings = true, .partial = true});
  CHECK(report.not_restored == std::vector<std::string>{"matrix", "stack.0", "stack.1", "stack.2"});
  CHECK((unchanged(0) && unchanged(1)));
  std::remove(path.c_str());
}

TEST_CASE("state of other programs in the middle of a run", "[torch]") {
  // Of AdamW and of torch.optim.Muon, in two groups: a copy that gets the moments goes on as the original.
  struct run_of_two {
    std::vector<at::Tensor> all = parameters(at::kDouble, {{8, 6}, {2, 6, 4}, {5}, {4, 3, 2, 2}});
    torch_optimizer opt{rules()};
    run_of_two() {
      opt.add_param_group(
          {.params = {all[0], all[2], all[3]}, .rule = "adamw", .lr = 0.02, .names = {"m", "v", "conv"}});
      opt.add_param_group({.params = {all[1]}, .rule = "torch_muon", .lr = 0.02, .stacked = true, .names = {"stack"}});
    }
  } ours, copy;
  run(ours.opt, ours.all, 5);
  for (std::size_t i = 0; i < ours.all.size(); ++i) copy.all[i].detach().copy_(ours.all[i].detach());
  copy.opt.prepare();
  const auto numbers = [](const at::Tensor& t) { return at::zeros(t.sizes(), at::kDouble); };
  const std::vector<std::pair<std::string, view<double>>> views = [] {
    return std::vector<std::pair<std::string, view<double>>>{
        {"m", {nullptr, 8, 6, 6, 1}}, {"v", {nullptr, 5, 1, 1, 1}}, {"conv", {nullptr, 4, 12, 12, 1}}};
  }();
  const std::vector<at::Tensor> of_adamw{ours.all[0], ours.all[2], ours.all[3]};
  for (std::size_t i = 0; i < views.size(); ++i) {
    const at::Tensor m = numbers(of_adamw[i]), v = numbers(of_adamw[i]);
    view<double> first = views[i].second, second = first;
    first.data = m.data_ptr<double>(), second.data = v.data_ptr<double>();
    CHECK(get_adam_moments(ours.opt, views[i].first, first, second) == 5);
    CHECK(m.abs().max().item<double>() > 0.1);
    set_adam_moments(copy.opt, views[i].first, first, second, 5);
  }
  const at::Tensor sum = numbers(ours.all[1]);
  const auto stack = row_major(sum.data_ptr<double>(), 6, 4, 2);
  get_momentum(ours.opt, "stack", stack, momentum_form::sum);
  set_momentum(copy.opt, "stack", stack, momentum_form::sum);
  copy.opt.set_steps(5);
  run(ours.opt, ours.all, 4, 5), run(copy.opt, copy.all, 4, 5);
  for (std::size_t i = 0; i < ours.all.size(); ++i)
    CHECK((ours.all[i] - copy.all[i]).abs().max().item<double>() < 1e-14);
  CHECK_THROWS_WITH(set_momentum(copy.opt, "stak", stack, momentum_form::sum), Contains("nearest: \"stack\""));
  CHECK_THROWS_WITH(set_momentum(copy.opt, "stack", row_major(sum.data_ptr<double>(), 12, 4), momentum_form::sum),
                    Contains("shape"));
}

TEST_CASE("non-finite gradients skip the step; writes are noticed", "[torch]") {
  one_group ours(parameters(), "muown");
  ours.go(2);
  const at::Tensor before = ours.all[0].detach().clone();
  give(ours.all, 2);
  ours.all[1].mutable_grad().view({-1}).select(0, 3).fill_(std::nan(""));
  ours.opt.step();
  CHECK(ours.all[0].equal(before));
  CHECK(ours.opt.poll_status().parameters == std::vector<std::string>{"param.1"});
  for (const bool counted : {true, false}) {
    ours.all[0].set_requires_grad(false);
    if (counted)
      ours.all[0].mul_(0.5);
    else
      ours.all[0].variable_data().mul_(0.5), ours.opt.resync();
    ours.all[0].set_requires_grad(true);
    const at::Tensor halved = ours.all[0].detach().clone();
    ours.opt.groups()[0].lr = 1e-9;
    ours.go(1, 3);
    CHECK((ours.all[0].detach() - halved).abs().max().item<double>() < 1e-6);
  }
}

TEST_CASE("a closure, and rules that estimate from two gradients", "[torch]") {
  one_group ours(parameters());
  const at::Tensor loss = ours.opt.step([&] {
    CHECK(at::GradMode::is_enabled());
    give(ours.all, 0);
    return at::full({}, 3.5);
  });
  CHECK(loss.item<double>() == 3.5);
  CHECK_THROWS_WITH(ours.opt.set_reference(ours.all[0], ours.all[0].grad()), Contains("estimates from one"));
  const auto final_weight = [](int seed) {
    one_group mars(parameters(), "mars_m_exact");
    for (int t = 0; t < 3; ++t) {
      give(mars.all, t);
      if (t > 0)
        for (auto& p : mars.all) mars.opt.set_reference(p, filled(p.sizes(), seed + t, at::kFloat));
      mars.opt.step();
    }
    return mars.all[0];
  };
  CHECK(final_weight(500).equal(final_weight(500)));
  CHECK((final_weight(500) - final_weight(600)).abs().max().item<double>() > 1e-4);
  one_group mars(parameters(), "mars_m_exact");
  mars.go(1);
  CHECK_THROWS_WITH(mars.go(1), Contains("reference gradient of \"param.0\" is missing"));
  for (auto& p : mars.all) mars.opt.set_reference(p, p.grad());
  mars.go(1);
  CHECK_THROWS_WITH(mars.go(1), Contains("missing"));  // each is for one step
  // Also in the first step after a load.
  one_group resumed(parameters(), "mars_m_exact");
  resumed.opt.load_state(mars.opt.state(), mars.opt.steps());
  CHECK_THROWS_WITH(resumed.go(1), Contains("missing"));
}

TEST_CASE("orthogonalized() by any policy", "[torch]") {
  eigen_backend cpu(1);
  const at::Tensor x = filled({2, 5, 7}, 3, at::kDouble);
  const at::Tensor y = orthogonalized(cpu, svd_polar{}, x);
  CHECK((y.matmul(y.transpose(1, 2)) - at::eye(5, at::kDouble)).abs().max().item<double>() < 1e-12);
  CHECK((y.transpose(1, 2) - orthogonalized(cpu, svd_polar{}, x.transpose(1, 2))).abs().max().item<double>() < 1e-12);
  CHECK_THROWS_WITH(orthogonalized(cpu, svd_polar{}, x.select(0, 0).select(0, 0)), Contains("two dimensions"));
}
