// Two groups are one optimizer to the outside: they skip steps together, and have no name and no memory twice.
#include <catch2/catch.hpp>

#include <limits>
#include <locale>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/optax_muon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/soap.hpp>
#include <matopt/state_conversion.hpp>
#include <matopt/suggest_roles.hpp>
#include <matopt/torch_muon.hpp>

#include "support/matrices.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

namespace {

using first_optimizer = optimizer<muon, eigen_backend>;
using second_optimizer = optimizer<adamw, eigen_backend>;
using groups_of_two = param_groups<eigen_backend>;

struct both {
  eigen_backend cpu{1};
  stored<float> w{4, 6}, g{4, 6}, v{3, 5}, gv{3, 5};
  groups_of_two groups;

  both(on_nonfinite first, on_nonfinite second, bool scales = false)
      : groups(first_optimizer(cpu, {}, {.nonfinite = first, .scales_gradient = scales}), 0.02,
               second_optimizer(cpu, {}, {.nonfinite = second, .scales_gradient = scales}), 0.01) {
    w.fill_random(1), v.fill_random(2);
    groups.add("w", w.v(), g.cv(), role::hidden);
    groups.add("v", v.v(), gv.cv(), role::vector);
    groups.finalize();
  }
  void gradients(std::uint64_t t) { g.fill_random(10 + t), gv.fill_random(1000 + t); }
  std::vector<float> weights() const {
    auto out = elements(w.cv());
    const auto more = elements(v.cv());
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
};
constexpr auto check = on_nonfinite::skip_step, ignore = on_nonfinite::ignore;

}  // namespace

TEST_CASE("groups: one bad gradient skips one step, whichever group looks", "[param_groups]") {
  for (const auto& [first, second] : {std::pair{check, check}, {check, ignore}, {ignore, check}})
    for (const bool in_first : {true, false}) {
      if ((in_first ? first : second) == ignore) continue;  // nobody looks there
      CAPTURE(first == check, second == check, in_first);
      both hit(first, second), clean(first, second);
      hit.gradients(0), clean.gradients(0);
      hit.groups.step(), clean.groups.step();
      for (int bad = 0; bad < 2; ++bad) {
        const auto before = hit.weights();
        hit.gradients(5);
        (in_first ? hit.g : hit.gv).v()(2, 1) = std::numeric_limits<float>::quiet_NaN();
        hit.groups.step();
        CHECK(same_bits(before, hit.weights()));
        hit.groups.set_steps(hit.groups.steps() - 1);
        for (int t = 1; t < 4; ++t) {
          const auto last = hit.weights();
          hit.gradients(static_cast<std::uint64_t>(4 * bad + t)),
              clean.gradients(static_cast<std::uint64_t>(4 * bad + t));
          hit.groups.step(), clean.groups.step();
          CHECK(same_bits(hit.weights(), clean.weights()));
          CHECK_FALSE(same_bits(last, hit.weights()));
        }
        if (bad == 0) {
          const step_status status = hit.groups.poll_status();
          CHECK(status.skipped == 1);
          CHECK(status.parameters == std::vector<std::string>{in_first ? "w" : "v"});
        }
      }
      CHECK(hit.groups.poll_status().skipped == 1);
      CHECK(hit.groups.poll_status().skipped == 0);
    }
}

TEST_CASE("groups: where both ignore, nothing is skipped; a scale of no use skips in any case", "[param_groups]") {
  both deaf(ignore, ignore);
  deaf.gradients(0);
  deaf.gv.v()(0, 0) = std::numeric_limits<float>::quiet_NaN();
  const auto before = elements(deaf.w.cv());
  deaf.groups.step();
  CHECK(deaf.groups.poll_status().skipped == 0);
  CHECK_FALSE(same_bits(before, elements(deaf.w.cv())));

  for (const auto& [first, second] : {std::pair{check, check}, {check, ignore}, {ignore, check}, {ignore, ignore}}) {
    both hit(first, second, true), clean(first, second, true);
    hit.gradients(0), clean.gradients(0);
    hit.groups.step(1, 0.5), clean.groups.step(1, 0.5);
    for (const double scale : {0.0, std::nan(""), static_cast<double>(INFINITY)}) {
      const auto last = hit.weights();
      hit.groups.step(1, scale);
      CHECK(same_bits(last, hit.weights()));
    }
    const step_status status = hit.groups.poll_status();
    CHECK(status.skipped == 3);
    CHECK(status.unusable_scales == 3);
    CHECK(status.parameters.empty());
    CHECK_THROWS_AS(hit.groups.step(1, -1), bad_value);
    CHECK_THROWS_WITH(hit.groups.step(1e41), Contains("lr is 1e+41"));
    CHECK(hit.groups.steps() == 4);
    hit.groups.set_steps(1);
    hit.gradients(1), clean.gradients(1);
    hit.groups.step(1, 0.5), clean.groups.step(1, 0.5);
    CHECK(same_bits(hit.weights(), clean.weights()));
  }
}

TEST_CASE("groups: memory of one group is not taken by the other", "[param_groups]") {
  eigen_backend cpu(1);
  stored<float> a(4, 4), b(4, 4), c(4, 4), d(4, 4), r(4, 4), s(4, 4);
  // One parameter in the first group with weight a, gradient b, reference r; then others in the second, or the other
  // way round.
  const auto refused = [&](role first, role second, view<float> w, view<const float> g, view<const float> reference) {
    param_groups groups(cpu, muon_storm{}, 0.1, adamw::with_momentum<muon_storm::momentum_type>{}, 0.1);
    groups.add("one", a.v(), b.cv(), r.cv(), first);
    std::string text;
    try {
      groups.add("two", w, g, reference, second);
    } catch (const bad_value& e) {
      text = e.what();
    }
    CHECK(groups.assignments().size() == (text.empty() ? 2 : 1));
    groups.add("three", row_major<float>(nullptr, 0, 4), row_major<const float>(nullptr, 0, 4),
               row_major<const float>(nullptr, 0, 4), second);  // as before
    groups.finalize();
    groups.step();
    return text;
  };
  const auto names_both = [](const std::string& text) {
    return text.find("\"one\"") != std::string::npos && text.find("\"two\"") != std::string::npos;
  };
  for (const auto& [first, second] : {std::pair{role::hidden, role::embedding}, {role::vector, role::hidden}}) {
    CHECK(refused(first, second, c.v(), d.cv(), s.cv()).empty());
    CHECK(names_both(refused(first, second, a.v(), d.cv(), s.cv())));  // weight and weight
    CHECK(names_both(refused(first, second, a.v().row_block(3, 1), d.cv().row_block(0, 1), s.cv().row_block(0, 1))));
    CHECK(names_both(refused(first, second, b.v(), d.cv(), s.cv())));  // gradient and weight
    CHECK(names_both(refused(first, second, r.v(), d.cv(), s.cv())));  // reference and weight
    CHECK(names_both(refused(first, second, c.v(), a.cv(), s.cv())));  // weight and gradient
    CHECK(names_both(refused(first, second, c.v(), d.cv(), a.cv())));  // weight and reference
    CHECK(names_both(refused(first, second, c.v(), b.cv(), s.cv())));  // gradient and gradient
    CHECK(names_both(refused(first, second, c.v(), d.cv(), r.cv())));  // reference and reference
  }
  // What rebind() brings is held against the weights of both.
  groups_of_two groups(first_optimizer(cpu), 0.1, second_optimizer(cpu), 0.1);
  groups.add("one", a.v(), b.cv(), role::hidden), groups.add("two", c.v(), d.cv(), role::head);
  CHECK_THROWS_WITH(groups.rebind("one", c.cv()), Contains("gradient of \"one\"") && Contains("weight of \"two\""));
  groups.rebind("one", d.cv()), groups.rebind("two", b.cv());  // gradients may change places
  groups.check_bound("one", a.v(), d.cv()), groups.check_bound("two", c.v(), b.cv());
  CHECK_THROWS_WITH(groups.check_bound("two", c.v(), d.cv()), Contains("gradient of \"two\""));
}

TEST_CASE("groups: names of one group, and of its state, are not taken by the other", "[param_groups]") {
  eigen_backend cpu(1);
  stored<float> w(4, 4, layout::row_major, 4), g(4, 4, layout::row_major, 4);
  for (const auto& [first, second] : {std::pair{role::hidden, role::embedding}, {role::embedding, role::hidden}})
    for (const auto& [stack, other] :
         {std::pair{"w", "w.0"}, {"w", "w.1.first_moment"}, {"w", "w.1.momentum"}, {"w", "w"}}) {
      CAPTURE(stack, other, first == role::hidden);
      groups_of_two groups(first_optimizer(cpu), 0.1, second_optimizer(cpu), 0.1);
      groups.add(stack, w.v().matrices(0, 2), g.cv().matrices(0, 2), first);
      const std::string state = first == role::hidden ? "momentum" : "first_moment";
      const std::string name = other;
      const auto add = [&] { groups.add(name, w.v().matrices(2, 1), g.cv().matrices(2, 1), second); };
      if (name.find('_') == std::string::npos && name.find("momentum") == std::string::npos)
        CHECK_THROWS_WITH(add(), Contains("parameter name"));
      else if (name.ends_with(state))
        CHECK_THROWS_WITH(add(), Contains("parameter name") && Contains("state of \"w\""));
      else
        CHECK_NOTHROW(add());
    }
}

TEST_CASE("groups: of optimizers that have parameters already, and of two backends", "[param_groups]") {
  eigen_backend cpu(1), another(1);
  CHECK_THROWS_WITH(groups_of_two(first_optimizer(cpu), 0.1, second_optimizer(another), 0.1),
                    Contains("backend of the second optimizer"));
  stored<float> w(4, 4), g(4, 4);
  first_optimizer a(cpu);
  a.add("w", w.v(), g.cv());
  CHECK_THROWS_WITH(groups_of_two(std::move(a), 0.1, second_optimizer(cpu), 0.1),
                    Contains("parameters of an optimizer that becomes a group"));
  CHECK_THROWS_WITH(groups_of_two(cpu).add_group("experts", nullptr, 0.1),
                    Contains("rule of group \"experts\" is null"));
}

TEST_CASE("groups: the table has points in its numbers, whatever the program's locale has", "[param_groups]") {
  struct commas : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    std::string do_grouping() const override { return "\3"; }
  };
  eigen_backend cpu(1);
  stored<float> w(4, 4), g(4, 4);
  groups_of_two groups(cpu, muon{}, 1234.5, adamw{}, 1);
  groups.add("w", w.v(), g.cv(), role::hidden, {.decay = 0.25});
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new commas));
  const std::string table = groups.table();
  std::locale::global(before);
  CHECK_THAT(table, Contains("lr 1234.5  decay 0.25"));
}

TEST_CASE("groups: a schedule of what is no number with a fraction says so", "[param_groups]") {
  eigen_backend cpu(1);
  groups_of_two groups(cpu, muon{}, 0.02, adamw{}, 1);
  const auto half = [](index_t) { return 0.5; };
  for (const char* name : {"ns_steps", "ns_form", "ns_unchecked"})
    CHECK_THROWS_WITH(groups.schedule("matrix", name, half),
                      Contains('"' + std::string(name) + "\" is not a number with a fraction"));
  CHECK_THROWS_WITH(groups.schedule("matrix", "ns_step", half), Contains("nearest: \"ns_steps\""));
}

TEST_CASE("groups: empty shards in one group or in both", "[param_groups]") {
  eigen_backend cpu(1);
  stored<float> v(3, 5), gv(3, 5);
  const auto none = [](index_t rows, index_t batch) { return row_major<float>(nullptr, rows, 5, batch); };
  groups_of_two one(first_optimizer(cpu), 0.1, second_optimizer(cpu), 0.1);
  one.add("w", none(0, 1), none(0, 1), role::hidden), one.add("v", v.v(), gv.cv(), role::vector);
  one.finalize();
  one.step();
  gv.v()(0, 0) = std::numeric_limits<float>::quiet_NaN();
  one.step();
  CHECK(one.poll_status().skipped == 1);
  groups_of_two stacks(first_optimizer(cpu), 0.1, second_optimizer(cpu), 0.1);
  stacks.add("w", none(5, 0), none(5, 0), role::hidden), stacks.add("v", none(5, 0), none(5, 0), role::vector);
  stacks.finalize();
  stacks.step();
  CHECK(stacks.steps() == 1);
  CHECK(stacks.poll_status());
}

TEST_CASE("groups: the phase of the last of many is part of the phase of all", "[param_groups]") {
  eigen_backend cpu(1);
  stored<float> w(1, 1, layout::row_major, 40), g(1, 1, layout::row_major, 40);
  param_groups<eigen_backend> groups(cpu);
  for (index_t i = 0; i < 40; ++i) {
    const std::string name = "group " + std::to_string(i);
    if (i < 39)
      groups.add_group(name, adamw{}, 0.01);
    else
      groups.add_group(name, soap{}, 0.01);
    groups.add(name, w.v().matrices(i, 1), g.cv().matrices(i, 1), name);
  }
  groups.finalize();
  groups.step();
  const index_t first = groups.phase();
  groups.step();
  CHECK(groups.phase() != first);  // SOAP's first step is another one than its second
}

TEST_CASE("suggest_roles: what the names and shapes of usual models say", "[roles]") {
  const std::pair<named_shape, role> known[] = {
      {{"transformer.wte.weight", {50257, 768}}, role::embedding},
      {{"transformer.wpe.weight", {1024, 768}}, role::embedding},
      {{"transformer.h.0.attn.c_attn.weight", {2304, 768}}, role::hidden},
      {{"transformer.h.0.ln_1.weight", {768}}, role::vector},
      {{"transformer.h.0.mlp.c_fc.weight", {3072, 768}}, role::hidden},
      {{"lm_head.weight", {50257, 768}}, role::head},
      {{"model.embed_tokens.weight", {32000, 4096}}, role::embedding},
      {{"model.layers.0.self_attn.q_proj.weight", {4096, 4096}}, role::hidden},
      {{"model.layers.0.mlp.gate_proj.weight", {11008, 4096}}, role::hidden},
      {{"tok_embeddings.weight", {32000, 4096}}, role::embedding},
      {{"output.weight", {32000, 4096}}, role::head},
      {{"bert.encoder.layer.0.attention.output.dense.weight", {768, 768}}, role::hidden},
      {{"bert.embeddings.token_type_embeddings.weight", {2, 768}}, role::vector},
      {{"classifier.weight", {10, 768}}, role::head},
      {{"classifier.bias", {10}}, role::vector},
      {{"shared.weight", {32128, 512}}, role::embedding},
      {{"decoder.block.0.SelfAttention.relative_attention_bias.weight", {32, 8}}, role::vector},
      {{"layer1.0.conv1.weight", {64, 64, 3, 3}}, role::hidden},
      {{"layer4.0.conv2.weight", {512, 1024, 3, 3}}, role::hidden},  // as wide as a vocabulary
      {{"fc.weight", {1000, 512}}, role::head},
      {{"encoder.fc.weight", {1000, 512}}, role::hidden},
      {{"blocks.0.sa.heads.0.key.weight", {64, 384}}, role::hidden},
      {{"attention.single_head.q_proj.weight", {64, 384}}, role::hidden},
      {{"heads.0.weight", {10, 384}}, role::head},
      {{"conv1d.weight", {1536, 1, 4}}, role::vector},
      {{"params/Unembed/kernel", {768, 50304}}, role::head},
      {{"scale", {}}, role::vector},
  };
  std::vector<named_shape> all;
  std::vector<role> expected;
  for (const auto& [p, r] : known) {
    CAPTURE(p.name);
    CHECK(suggest_role(p.name, p.shape) == r);
    all.push_back(p), expected.push_back(r);
  }
  CHECK(suggest_roles(all) == expected);

  using Catch::Matchers::Contains;
  require_confirmed(all, expected);
  std::vector<role> wrong = expected;
  wrong[5] = role::hidden;
  CHECK_THROWS_WITH(require_confirmed(all, wrong), Contains("role of \"lm_head.weight\" is hidden; legal: head"));
  require_confirmed(all, wrong, {"lm_head.weight"});
  wrong[0] = role::hidden;
  CHECK_THROWS_WITH(require_confirmed(all, wrong, {"lm_head.weight"}), Contains("wte") && Contains("embedding"));
  wrong.pop_back();
  CHECK_THROWS_WITH(require_confirmed(all, wrong), Contains("number of roles is 26"));
  std::vector<role> cautious(all.size(), role::vector);  // the other way round nothing goes wrong silently
  require_confirmed(all, cautious);
}

namespace {

// What other programs keep of gradients, by their formulas.
struct foreign_state {
  std::vector<double> mean, sum, exp_avg, exp_avg_sq;
  explicit foreign_state(std::size_t n) : mean(n), sum(n), exp_avg(n), exp_avg_sq(n) {}
  void add(const std::vector<double>& g) {
    for (std::size_t i = 0; i < g.size(); ++i) {
      mean[i] += 0.05 * (g[i] - mean[i]), sum[i] = 0.95 * sum[i] + g[i];
      exp_avg[i] = 0.9 * exp_avg[i] + 0.1 * g[i], exp_avg_sq[i] = 0.999 * exp_avg_sq[i] + 0.001 * g[i] * g[i];
    }
  }
};

// Two stacked matrices of 6 x 4, whose rows are two blocks; their weights after 7 steps, and after one more.
template <class Rule>
struct stacked_run {
  using groups = param_groups<eigen_backend, types<double>>;
  std::vector<double> w = std::vector<double>(48, 0.5), g = std::vector<double>(48);
  groups opt;
  explicit stacked_run(eigen_backend& cpu, Rule rule = {}) : opt(cpu) {
    opt.add_group("a", rule, 0.1);
    opt.add("w", row_major(w.data(), 6, 4, 2), row_major<const double>(g.data(), 6, 4, 2), "a", {.row_blocks = {2, 4}});
    opt.finalize();
  }
  void step(int t) {
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = std::sin(1.3 * double(i * i) + 0.7 * t);
    opt.step(1);
  }
};
auto matrices_of(const std::vector<double>& x) { return row_major(x.data(), 6, 4, 2); }
auto matrices_of(std::vector<double>& x) { return row_major(x.data(), 6, 4, 2); }
void check_near(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-12));
}

template <class Rule>
void goes_on_with(eigen_backend& cpu, const foreign_state& theirs, stacked_run<Rule>& whole, Rule rule = {}) {
  const std::vector<double> at_seven = whole.w;
  std::vector<double> mean(48), sum(48);
  get_momentum(whole.opt, "w", matrices_of(mean), momentum_form::mean);
  get_momentum(whole.opt, "w", matrices_of(sum), momentum_form::sum);
  check_near(mean, theirs.mean), check_near(sum, theirs.sum);
  whole.step(7);
  for (const momentum_form form : {momentum_form::mean, momentum_form::sum}) {
    stacked_run<Rule> other(cpu, rule);
    other.w = at_seven;
    set_momentum(other.opt, "w", matrices_of(form == momentum_form::mean ? theirs.mean : theirs.sum), form, 7);
    other.step(7);
    check_near(other.w, whole.w);
  }
}

}  // namespace

TEST_CASE("a run goes on with the momentum of another program, a mean or a sum", "[state_conversion]") {
  eigen_backend cpu(1);
  foreign_state theirs(48);
  stacked_run<torch_muon> mean(cpu);
  stacked_run<moonlight> sum(cpu);
  stacked_run<optax_muon> corrected(cpu);
  for (int t = 0; t < 7; ++t) mean.step(t), sum.step(t), corrected.step(t), theirs.add(mean.g);
  goes_on_with(cpu, theirs, mean), goes_on_with(cpu, theirs, sum), goes_on_with(cpu, theirs, corrected);

  // torch.optim.Muon's state, from a C++ program's own tensors.
  const std::vector<double>& momentum_buffer = theirs.mean;
  auto& opt = mean.opt;
  set_momentum(opt, "w", row_major(momentum_buffer.data(), 6, 4, 2), momentum_form::mean);

  CHECK_THROWS_WITH(set_momentum(corrected.opt, "w", matrices_of(theirs.mean), momentum_form::mean),
                    Catch::Contains("steps"));
  CHECK_THROWS_WITH(set_momentum(sum.opt, "v", matrices_of(theirs.sum), momentum_form::sum), Catch::Contains("\"v\""));
  CHECK_THROWS_WITH(set_momentum(sum.opt, "w", row_major(theirs.mean.data(), 12, 4), momentum_form::sum),
                    Catch::Contains("12x4"));
  CHECK_THROWS_WITH(set_momentum(sum.opt, "w", row_major(theirs.mean.data(), 6, 4), momentum_form::sum),
                    Catch::Contains("1 matrices"));
  stacked_run<lion> other(cpu);
  CHECK_THROWS_WITH(set_momentum(other.opt, "w", matrices_of(theirs.mean), momentum_form::mean),
                    Catch::Contains("momentum"));
  std::vector<double> now(48);
  get_momentum(sum.opt, "w", matrices_of(now), momentum_form::sum);
  CHECK(now != std::vector<double>(48));
}

TEST_CASE("a run goes on with the moments of another program's AdamW", "[state_conversion]") {
  eigen_backend cpu(1);
  foreign_state theirs(48);
  stacked_run<adamw> whole(cpu), other(cpu);
  for (int t = 0; t < 7; ++t) whole.step(t), theirs.add(whole.g);
  std::vector<double> m(48), v(48);
  CHECK(get_adam_moments(whole.opt, "w", matrices_of(m), matrices_of(v)) == 7);
  check_near(m, theirs.exp_avg), check_near(v, theirs.exp_avg_sq);
  other.w = whole.w;
  set_adam_moments(other.opt, "w", matrices_of(theirs.exp_avg), matrices_of(theirs.exp_avg_sq), 7);
  whole.step(7), other.step(7);
  check_near(whole.w, other.w);
  CHECK_THROWS_WITH(set_adam_moments(other.opt, "w", matrices_of(m), row_major(v.data(), 4, 6, 2), 7),
                    Catch::Contains("4x6"));
  CHECK_THROWS_WITH(set_adam_moments(other.opt, "w", matrices_of(m), matrices_of(v), -1), Catch::Contains("-1"));
  CHECK(get_adam_moments(other.opt, "w", matrices_of(m), matrices_of(v)) == 8);
}

TEST_CASE("another program's state goes to what was added by that name alone, or nowhere", "[state_conversion]") {
  eigen_backend cpu(1);
  std::vector<float> w(18, 0.5F), g(18, 1);
  any_optimizer<eigen_backend> opt(cpu, moonlight{});
  const auto add = [&](const char* name, index_t from, index_t batch = 1) {
    opt.add(name, row_major(w.data() + from, 1, 3, batch), row_major<const float>(g.data() + from, 1, 3, batch));
  };
  add("s", 0), add("s.1", 3), add("t", 6, 2), add("t.2", 12), add("s.99999999999999999999", 15);
  opt.finalize();
  const auto buffer_of = [&](const char* name, index_t batch = 1) {
    std::vector<double> all(static_cast<std::size_t>(3 * batch));
    get_momentum(opt, name, row_major(all.data(), 1, 3, batch), momentum_form::sum);
    return all;
  };
  const std::vector<double> one{1, 2, 3}, two{4, 5, 6, 7, 8, 9}, none(3);
  set_momentum(opt, "s", row_major(one.data(), 1, 3), momentum_form::sum);
  set_momentum(opt, "t", row_major(two.data(), 1, 3, 2), momentum_form::sum);
  CHECK(buffer_of("s") == one);
  CHECK(buffer_of("t", 2) == two);
  CHECK(buffer_of("s.1") == none);
  CHECK(buffer_of("t.2") == none);
  CHECK_THROWS_WITH(set_momentum(opt, "s", row_major(two.data(), 1, 3, 2), momentum_form::sum),
                    Catch::Contains("2 matrices"));
  CHECK_THROWS_WITH(buffer_of("t.1"), Catch::Contains("\"t.1\"") && Catch::Contains("nearest"));

  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1e39}) {
    const std::vector<double> with_bad{1, 1, 1, 1, bad, 1};
    CHECK_THROWS_WITH(set_momentum(opt, "t", row_major(with_bad.data(), 1, 3, 2), momentum_form::sum),
                      Catch::Contains("\"t.1.momentum\"") && Catch::Contains("legal: finite in F32"));
  }
  CHECK(buffer_of("t", 2) == two);
}
