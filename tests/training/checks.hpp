// What a training run does between steps: it changes settings, moves gradients, leaves parameters out, writes weights
// from outside, adds and drops parameters, clips. Templates over a world (world.hpp), run on each backend.
#pragma once
#include <catch2/catch.hpp>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/muown.hpp>
#include <matopt/namo.hpp>
#include <matopt/normuon.hpp>
#include <matopt/optimizer.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>
#include <matopt/policy/schedule/setting.hpp>

#include <matopt/soap.hpp>
#include <matopt/step_observer.hpp>

#include "world.hpp"

namespace matopt::test::training {

using Catch::Matchers::Contains;

// A stack of three matrices and one more of another shape, with gradients that depend on the step alone.
template <class World, class T = float>
struct model {
  using matrix = typename World::template matrix<T>;
  matrix w, g, v, h;

  explicit model(World& world)
      : w(world, 12, 20, layout::row_major, 3),
        g(world, 12, 20, layout::row_major, 3),
        v(world, 16, 8),
        h(world, 16, 8) {
    w.host.fill_random(1, 0.5), v.host.fill_random(2, 0.5);
    w.up(), v.up();
  }
  void gradients(int t) {
    g.host.fill_random(static_cast<std::uint64_t>(100 + t)), h.host.fill_random(static_cast<std::uint64_t>(900 + t));
    g.up(), h.up();
  }
  // Bits of matrix b of the stack; of the other one for b = 3.
  std::vector<T> weight(index_t b) {
    (b < 3 ? w : v).down();
    return b < 3 ? elements(w.host.cv().matrices(b, 1)) : elements(v.host.cv());
  }
  std::vector<T> weights() {
    std::vector<T> all;
    for (index_t b = 0; b < 4; ++b) {
      const auto one = weight(b);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }
  template <class Optimizer>
  void add_to(Optimizer& opt) {
    opt.add("w", w.v(), g.cv());
    opt.add("v", v.v(), h.cv());
  }
};

template <class Optimizer>
std::vector<std::byte> state_of_parameter(const Optimizer& opt, const std::string& name) {
  std::vector<std::byte> all;
  for (const auto& t : opt.state_tensors()) {
    if (!t.name.starts_with(name + ".")) continue;
    std::vector<std::byte> one(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type));
    opt.read_state(t, one.data());
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

// --- settings that live ---

// modded-nanogpt's momentum: warmed up from 0.85 to 0.95, and cooled down at the end.
inline piecewise_linear warm_and_cool() { return piecewise_linear({{0, 0.85}, {6, 0.95}, {14, 0.95}, {18, 0.85}}); }

template <class World>
void schedule_is_set_in_each_step() {
  World one, two;
  model<World> a(one), b(two);
  optimizer<muon, typename World::backend> scheduled(one.b), by_hand(two.b);
  a.add_to(scheduled), b.add_to(by_hand);
  scheduled.schedule("momentum", warm_and_cool());
  scheduled.finalize(), by_hand.finalize();
  typename World::template stepping<decltype(scheduled)> step(scheduled);
  std::vector<float> constant;
  for (int t = 0; t < 20; ++t) {
    a.gradients(t), b.gradients(t);
    by_hand.set("momentum", warm_and_cool()(t));
    step(0.02), by_hand.step(0.02);
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
  CHECK(scheduled.rule().momentum.beta == warm_and_cool()(19));
  // It does something, from the second step on: the first momentum is the gradient times a number.
  World three;
  model<World> c(three);
  optimizer<muon, typename World::backend> still(three.b, muon{.momentum = {.beta = 0.85}});
  c.add_to(still), still.finalize();
  for (int t = 0; t < 20; ++t) c.gradients(t), still.step(0.02);
  CHECK_FALSE(same_bits(a.weights(), c.weights()));
}

template <class World>
void decay_follows_rate() {
  World one, two;
  model<World> a(one), b(two);
  const cosine_rate rate{.warmup = 3, .total = 16, .floor = 0.1};
  optimizer<adamw, typename World::backend> scheduled(one.b);
  a.add_to(scheduled), scheduled.finalize();
  scheduled.schedule("decay", [rate](index_t t) { return 0.2 * rate.factor(t); });
  typename World::template stepping<decltype(scheduled)> step(scheduled);
  for (int t = 0; t < 16; ++t) a.gradients(t), step(0.01 * rate.factor(t));
  // An optimizer that is made anew in each step, with the state and the setting of that step.
  std::vector<std::pair<std::string, std::vector<std::byte>>> state;
  for (int t = 0; t < 16; ++t) {
    optimizer<adamw, typename World::backend> fresh(two.b, adamw{.constraint = {.decay = 0.2 * rate.factor(t)}});
    b.add_to(fresh), fresh.finalize(), fresh.set_steps(t);
    const auto tensors = fresh.state_tensors();
    for (std::size_t i = 0; i < state.size(); ++i) fresh.write_state(tensors[i], state[i].second.data());
    b.gradients(t), fresh.step(0.01 * rate.factor(t));
    state.clear();
    for (const auto& s : fresh.state_tensors()) {
      state.push_back({s.name, std::vector<std::byte>(static_cast<std::size_t>(s.rows * s.cols) * size_of(s.type))});
      fresh.read_state(s, state.back().second.data());
    }
  }
  CHECK(same_bits(a.weights(), b.weights()));
}

template <class World>
void refused_settings_change_nothing() {
  World one, two;
  model<World> a(one), b(two);
  optimizer<adamw, typename World::backend> opt(one.b), untouched(two.b);
  a.add_to(opt), b.add_to(untouched);
  opt.finalize(), untouched.finalize();
  for (int t = 0; t < 6; ++t) {
    a.gradients(t), b.gradients(t);
    CHECK_THROWS_WITH(opt.set("beta3", 0.5), Contains("beta3") && Contains("nearest"));
    CHECK_THROWS_WITH(opt.set("beta2", 1.0), Contains("beta2 is 1") && Contains("[0, 1)"));
    CHECK_THROWS_WITH(opt.set("beta2", "much"), Contains("beta2") && Contains("a number"));
    CHECK_THROWS_WITH(opt.set("eps", 1e-300), Contains("eps"));
    CHECK_THROWS_WITH(opt.set("amsgrad", "true"), Contains("amsgrad") && Contains("finalize()"));
    CHECK_THROWS_WITH(opt.schedule("bet2", linear(0, 1, 3)), Contains("bet2") && Contains("nearest"));
    CHECK_THROWS_WITH(opt.schedule("amsgrad", linear(0, 1, 3)), Contains("amsgrad"));
    if (t == 3) {  // a schedule that leaves the legal range is refused in that step, before anything has begun
      opt.schedule("beta1", [](index_t) { return 0.5; }), opt.schedule("beta2", [](index_t) { return 1.5; });
      CHECK_THROWS_WITH(opt.step(0.01), Contains("beta2 is 1.5"));
      CHECK(opt.steps() == 3);
      opt.schedule("beta1", {}), opt.schedule("beta2", {});
      opt.schedule("beta2", [](index_t) -> double { throw std::runtime_error("a schedule's own error"); });
      CHECK_THROWS_WITH(opt.step(0.01), Contains("a schedule's own error"));
      opt.schedule("beta2", {});
    }
    CHECK(opt.rule().momentum.beta1 == untouched.rule().momentum.beta1);
    opt.step(0.01), untouched.step(0.01);
  }
  CHECK(same_bits(a.weights(), b.weights()));
  CHECK(opt.settings().size() == untouched.settings().size());
}

// A setting has one schedule, by whatever name it is given; set() ends it, for the rate as well. A step that is refused
// leaves scheduled settings as they were.
template <class World>
void schedules_have_one_name_and_an_end() {
  World one;
  model<World> a(one);
  param_groups<typename World::backend> groups(one.b);
  groups.add_group("all", adamw{}, 0.1);
  groups.add("w", a.w.v(), a.g.cv(), "all"), groups.add("v", a.v.v(), a.h.cv(), "all");
  groups.finalize();
  const auto value = [&](const std::string& name) {
    for (const auto& list : {groups.settings(), groups.scheduled_settings()})
      for (const setting& s : list)
        if (s.name == "all." + name) return s.value;
    return std::string();
  };
  const auto next = [&] { a.gradients(1), groups.step(); };
  groups.schedule("all", "weight_decay", [](index_t t) { return 0.25 * static_cast<double>(1 + t); });
  CHECK(groups.scheduled_settings().size() == 1);
  next();
  CHECK(value("decay") == "0.25");
  groups.schedule("all", "decay", [](index_t) { return 0.75; });  // in the place of the other one
  next();
  CHECK(value("decay") == "0.75");
  groups.set("all", "weight_decay", 0.125);
  next();
  CHECK(value("decay") == "0.125");
  CHECK(groups.scheduled_settings().empty());

  groups.schedule("all", "lr", [](index_t t) { return 0.01 * static_cast<double>(t); });
  next();
  CHECK(groups.lr("all") == Approx(0.03));
  groups.set("all", "lr", 0.5);
  next();
  CHECK(groups.lr("all") == 0.5);

  groups.schedule("all", "beta1", [](index_t t) { return 0.125 * static_cast<double>(t); });
  groups.schedule("all", "lr", [](index_t t) { return t == 5 ? 0.25 : 1e300; });
  next();
  const index_t steps = groups.steps();
  CHECK_THROWS_WITH(next(), Contains("lr of \"all\" is 1e+300"));
  groups.schedule("all", "lr", [](index_t) { return 1e20; });
  CHECK_THROWS_WITH(groups.step(1e20), Contains("lr of \"all\""));
  CHECK(value("beta1") == "0.625");
  CHECK(groups.lr("all") == 0.25);
  CHECK(groups.steps() == steps);
}

// Two optimizers that become groups bring along what was set and scheduled.
template <class World>
void optimizers_bring_their_schedules() {
  World one, two;
  model<World> a(one), b(two);
  using backend = typename World::backend;
  optimizer<muon, backend> matrix(one.b);
  optimizer<adamw, backend> rest(one.b);
  matrix.schedule("momentum", warm_and_cool());
  matrix.schedule("lr", [](index_t t) { return 1.0 / static_cast<double>(1 + t); });
  rest.set("beta2", 0.99), rest.set("lr", 0.5);
  param_groups<backend> groups(std::move(matrix), 0.02, std::move(rest), 0.01), by_hand(two.b);
  by_hand.add_group("matrix", muon{}, 0.02).add_group("rest", adamw{.momentum = {.beta2 = 0.99}}, 0.005);
  groups.add("w", a.w.v(), a.g.cv(), "matrix"), groups.add("v", a.v.v(), a.h.cv(), "rest");
  by_hand.add("w", b.w.v(), b.g.cv(), "matrix"), by_hand.add("v", b.v.v(), b.h.cv(), "rest");
  groups.finalize(), by_hand.finalize();
  for (int t = 0; t < 6; ++t) {
    a.gradients(t), b.gradients(t);
    by_hand.set("matrix", "momentum", warm_and_cool()(t));
    by_hand.set("matrix", "lr", 0.02 * (1.0 / (1 + t)));
    groups.step(), by_hand.step();
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
}

template <class World>
void parameters_change_their_rate_and_decay() {
  World one, two;
  model<World> a(one), b(two);
  optimizer<muon, typename World::backend> changed(one.b), made(two.b);
  a.add_to(changed);
  made.add("w", b.w.v(), b.g.cv(), {.lr_scale = 0.5, .decay = 0.25});
  made.add("v", b.v.v(), b.h.cv());
  changed.finalize(), made.finalize();
  changed.set_parameter("w", 0.5, 0.25);
  for (int t = 0; t < 3; ++t) a.gradients(t), b.gradients(t), changed.step(0.02), made.step(0.02);
  CHECK(same_bits(a.weights(), b.weights()));
  // In the middle of a run: momenta stay.
  const auto momentum = state_of_parameter(changed, "w.1");
  changed.set_parameter("w", 2);
  CHECK(state_of_parameter(changed, "w.1") == momentum);
  CHECK_THROWS_WITH(changed.set_parameter("w", -1), Contains("lr_scale of \"w\""));
  CHECK_THROWS_WITH(changed.set_parameter("x", 1), Contains("no parameter \"x\""));
  // What groups say of their parameters is what steps do.
  param_groups<typename World::backend> groups(one.b);
  groups.add_group("all", adamw{}, 0.1);
  groups.add("w", a.w.v(), a.g.cv(), "all", {.lr_scale = 3});
  CHECK(groups.table().find("lr 0.3  decay rule") != std::string::npos);
  groups.set_parameter("w", 0.5, 0.25);
  CHECK(groups.table().find("lr 0.05  decay 0.25") != std::string::npos);
  CHECK_THROWS_WITH(groups.set_parameter("w", -1), Contains("lr_scale of \"w\""));
  CHECK(groups.assignments().front().lr_scale == 0.5);
}

// --- groups ---

template <class World>
void groups_are_optimizers_side_by_side() {
  World one, two;
  model<World> a(one), b(two);
  using backend = typename World::backend;
  param_groups<backend> groups(one.b);
  groups.add_group("muon", muon{.momentum = {.beta = 0.9}}, 0.02)
      .add_group("slow", muon{}, 0.005)
      .add_group("adam", adamw{}, 3e-3);
  const auto part = [](auto v, index_t from, index_t count) { return v.matrices(from, count); };
  groups.add("first", part(a.w.v(), 0, 1), part(a.g.cv(), 0, 1), "muon");
  groups.add("second", part(a.w.v(), 1, 2), part(a.g.cv(), 1, 2), "slow");
  groups.add("third", a.v.v(), a.h.cv(), "adam", {.lr_scale = 2});
  CHECK_THROWS_WITH(groups.add("x", a.v.v(), a.h.cv(), "adamw"),
                    Contains("no group \"adamw\"") && Contains("\"adam\""));
  CHECK_THROWS_WITH(groups.add_group("slow", muon{}, 1), Contains("\"slow\""));
  CHECK_THROWS_WITH(groups.add_group("new", muon{}, -1), Contains("lr of \"new\""));
  groups.schedule("slow", "momentum", warm_and_cool());
  groups.schedule("adam", "lr", [](index_t t) { return 3e-3 / static_cast<double>(1 + t); });
  groups.finalize();
  typename World::template stepping<decltype(groups)> step(groups);

  optimizer<muon, backend> first(two.b, muon{.momentum = {.beta = 0.9}}), second(two.b);
  optimizer<adamw, backend> third(two.b);
  first.add("first", part(b.w.v(), 0, 1), part(b.g.cv(), 0, 1));
  second.add("second", part(b.w.v(), 1, 2), part(b.g.cv(), 1, 2));
  third.add("third", b.v.v(), b.h.cv(), {.lr_scale = 2});
  first.finalize(), second.finalize(), third.finalize();
  second.schedule("momentum", warm_and_cool());
  for (int t = 0; t < 8; ++t) {
    const double factor = 1.0 / (1 + t);
    a.gradients(t), b.gradients(t);
    step(factor), first.step(0.02 * factor), second.step(0.005 * factor);
    third.step(3e-3 / static_cast<double>(1 + t) * factor);
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
  // One bad gradient skips the step of all.
  const auto before = a.weights();
  a.gradients(8), a.h.host.v()(3, 3) = std::numeric_limits<float>::infinity(), a.h.up();
  step(1.0);
  CHECK(same_bits(before, a.weights()));
  const auto status = groups.poll_status();
  CHECK(status.skipped == 1);
  CHECK(status.parameters == std::vector<std::string>{"third"});
  CHECK(groups.table().find("third  adam  16x8  lr ") != std::string::npos);
}

// --- gradients that move ---

template <class World>
void gradients_move_between_steps() {
  World one, two;
  model<World> a(one), b(two), spare(one);
  optimizer<normuon, typename World::backend> moved(one.b), fixed(two.b);
  a.add_to(moved), b.add_to(fixed);
  moved.finalize(), fixed.finalize();
  typename World::template stepping<decltype(moved)> step(moved);
  for (int t = 0; t < 6; ++t) {
    model<World>& now = t % 2 ? spare : a;
    now.gradients(t), b.gradients(t);
    const std::array<const float*, 2> pointers{now.g.cv().data, now.h.cv().data};
    moved.rebind(pointers);
    step(0.02), fixed.step(0.02);
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
  const std::array<const float*, 1> few{a.g.cv().data};
  CHECK_THROWS_WITH(moved.rebind(few), Contains("number of gradients is 1") && Contains("2, one for each view"));
  const std::array<const float*, 2> on_weight{a.g.cv().data, a.v.cv().data};
  CHECK_THROWS_WITH(moved.rebind(on_weight), Contains("gradient of \"v\"") && Contains("weight of \"v\""));
  const std::array<const float*, 2> shared{a.g.cv().data, a.g.cv().data + 3};
  CHECK_THROWS_WITH(moved.rebind(shared), Contains("gradient of \"v\"") && Contains("gradient of \"w\""));
  // Weights move, too.
  model<World> elsewhere(one);
  a.w.down(), elsewhere.w.host.memory() = a.w.host.memory(), elsewhere.w.up();
  const std::array<float*, 2> weights{elsewhere.w.v().data, a.v.v().data};
  const std::array<const float*, 2> pointers{spare.g.cv().data, spare.h.cv().data};
  moved.rebind(weights, pointers);
  spare.gradients(7), b.gradients(7);
  step(0.02), fixed.step(0.02);
  for (index_t i = 0; i < 3; ++i) CHECK(same_bits(elsewhere.weight(i), b.weight(i)));
  CHECK(same_bits(a.weight(3), b.weight(3)));
}

// Both gradients of a rule that compares two move, each kind by one call or all together.
template <class World>
void reference_gradients_move_between_steps() {
  World one, two;
  model<World> a(one), b(two), a_reference(one), b_reference(two), spare(one), spare_reference(one);
  const auto add = [](auto& opt, model<World>& m, model<World>& reference) {
    opt.add_group("two", muon_storm{}, 1).add_group("one", adamw{}, 0.1);
    opt.add("w", m.w.v(), m.g.cv(), reference.g.cv(), "two"), opt.add("v", m.v.v(), m.h.cv(), "one"), opt.finalize();
  };
  param_groups<typename World::backend> moved(one.b), fixed(two.b);
  add(moved, a, a_reference), add(fixed, b, b_reference);
  typename World::template stepping<decltype(moved)> step(moved);
  for (int t = 0; t < 8; ++t) {
    model<World>&now = t % 2 ? spare : a, &reference = t % 2 ? spare_reference : a_reference;
    now.gradients(t), b.gradients(t), reference.gradients(t + 50), b_reference.gradients(t + 50);
    const std::array<const float*, 2> pointers{now.g.cv().data, now.h.cv().data},
        second{reference.g.cv().data, nullptr};
    if (t < 4)
      moved.rebind({}, pointers, second);
    else  // (the reference goes first: no two may lie at one place at any time)
      moved.rebind_references(second), moved.rebind(pointers);
    step(0.02), fixed.step(0.02);
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
  const std::array<const float*, 1> few{a.g.cv().data};
  CHECK_THROWS_WITH(moved.rebind_references(few),
                    Contains("number of reference gradients is 1") && Contains("2, one for each view"));
  const std::array<const float*, 2> on_weight{a.w.cv().data, nullptr}, on_gradient{spare.g.cv().data, nullptr};
  CHECK_THROWS_WITH(moved.rebind_references(on_weight), Contains("reference gradient of \"w\"") && Contains("weight"));
  CHECK_THROWS_WITH(moved.rebind_references(on_gradient), Contains("of \"w\"") && Contains("gradient of \"w\""));
  // Without a reference gradient the parameter is left out, and the others go on.
  const std::array<const float*, 2> none{};
  moved.rebind_references(none);
  const auto left = a.weight(0);
  spare.gradients(9), b.gradients(9), step(0.02);
  fixed.leave_out({"w"}), fixed.step(0.02);
  CHECK(moved.poll_status());
  CHECK(same_bits(a.weight(0), left));
  CHECK(same_bits(a.weights(), b.weights()));
  // It takes part again where it has one, by a call for all or for one.
  moved.rebind_reference("w", spare_reference.g.cv()), fixed.leave_out({});
  spare.gradients(10), b.gradients(10), spare_reference.gradients(60), b_reference.gradients(60);
  step(0.02), fixed.step(0.02);
  CHECK_FALSE(same_bits(a.weight(0), left));
  CHECK(same_bits(a.weights(), b.weights()));
}

// --- parameters left out ---

// `make(backend)` makes the optimizer. Matrix 1 of the stack takes no part in steps 3 to 5: nothing of it changes, and
// the others get the bits that they get when all are there.
template <class World, class Make>
void left_out(Make make, bool steps_alone) {
  World one, two;
  model<World> a(one), b(two);
  auto some = make(one.b);
  auto all = make(two.b);
  const auto add = [](auto& opt, model<World>& m) {
    opt.add("w", m.w.v(), m.g.cv(), m.g.cv()), opt.add("v", m.v.v(), m.h.cv(), m.h.cv());
  };
  if (some.needs_reference()) return;  // its reference gradient is another matrix; see below
  add(some, a), add(all, b);
  some.finalize(), all.finalize();
  typename World::template stepping<decltype(some)> step(some);
  std::vector<float> weight;
  std::vector<std::byte> state;
  for (int t = 0; t < 9; ++t) {
    a.gradients(t), b.gradients(t);
    if (t == 3) {
      some.leave_out({"w.1"});
      weight = a.weight(1), state = state_of_parameter(some, "w.1");
    }
    if (t >= 3 && t < 6) {  // nobody looks at its gradient
      a.g.host.v()(2, 5, 1) = std::numeric_limits<float>::quiet_NaN();
      a.g.up();
    }
    if (t == 6) some.leave_out(std::span<const std::string>());
    step(0.01), all.step(0.01);
    CHECK(some.poll_status());
    if (t >= 3 && t < 6) {
      REQUIRE(same_bits(a.weight(1), weight));
      REQUIRE(state_of_parameter(some, "w.1") == state);
    }
    for (const index_t other : {0, 2, 3}) REQUIRE(same_bits(a.weight(other), b.weight(other)));
  }
  CHECK_FALSE(same_bits(a.weight(1), b.weight(1)));
  if (!steps_alone) return;
  // It went on as if the steps without it had not been.
  World three;
  model<World> c(three);
  auto few = make(three.b);
  add(few, c), few.finalize();
  for (const int t : {0, 1, 2, 6, 7, 8}) c.gradients(t), few.step(0.01);
  CHECK(same_bits(a.weight(1), c.weight(1)));
}

// It lasts until the next call, although others come and go, before finalize() and after it.
template <class World>
void left_out_while_others_come_and_go() {
  World one;
  model<World> a(one), spare(one), late(one);
  optimizer<muon, typename World::backend> opt(one.b);
  opt.add("gone", spare.v.v(), spare.h.cv());
  a.add_to(opt);
  opt.leave_out({"gone", "w.1"});
  opt.drop("gone");
  const auto check = [&] {
    const auto before = a.weights();
    a.gradients(3), spare.gradients(4), late.gradients(5);
    opt.step(0.02);
    const auto now = a.weights();
    for (index_t b = 0; b < 4; ++b) {
      const auto from = static_cast<std::ptrdiff_t>(240 * b), to = b < 3 ? from + 240 : from + 128;
      CHECK(std::equal(now.begin() + from, now.begin() + to, before.begin() + from) == (b == 1));
    }
  };
  opt.finalize(), check();
  opt.add("late", late.v.v(), late.h.cv()), opt.finalize(), check();
  opt.add("gone", spare.v.v(), spare.h.cv()), opt.leave_out({"w.1", "late"}), opt.drop("late"), opt.finalize(), check();
  opt.set_parameter("v", 0.5), check();
  opt.drop("w"), opt.add("w", a.w.v(), a.g.cv()), opt.finalize();  // added anew, nobody has left it out
  const auto before = a.weight(1);
  opt.step(0.02);
  CHECK_FALSE(same_bits(before, a.weight(1)));
}

template <class World>
void no_gradient_is_left_out() {
  World one, two;
  model<World> a(one), b(two);
  optimizer<muon, typename World::backend> null(one.b), named(two.b);
  a.add_to(null), b.add_to(named);
  null.finalize(), named.finalize();
  typename World::template stepping<decltype(null)> step(null);
  for (int t = 0; t < 6; ++t) {
    a.gradients(t), b.gradients(t);
    const bool out = t == 2 || t == 3;
    const std::array<const float*, 2> pointers{out ? nullptr : a.g.cv().data, a.h.cv().data};
    null.rebind(pointers);
    if (out)
      named.leave_out({"w"});
    else
      named.leave_out(std::span<const std::string>());
    step(0.02), named.step(0.02);
    REQUIRE(same_bits(a.weights(), b.weights()));
  }
  CHECK_THROWS_WITH(null.leave_out({"x"}), Contains("no parameter \"x\""));
  // Where a gradient was that is gone, another one may lie now, or a parameter that is added; rebind() ends it.
  const auto w_before = a.weights();
  const std::array<const float*, 2> reused{nullptr, a.g.cv().data};
  null.rebind(reused);
  step(0.02);
  null.add("late", row_major(a.h.v().data, 4, 8), row_major(static_cast<const float*>(a.h.v().data) + 32, 4, 8));
  null.add("later", row_major(a.g.v().data + 128, 4, 8), row_major(static_cast<const float*>(a.h.v().data) + 64, 4, 8));
  null.finalize(), null.step(0.02);
  for (index_t i = 0; i < 3; ++i)
    CHECK(same_bits(a.weight(i), std::vector<float>(w_before.begin() + i * 240, w_before.begin() + (i + 1) * 240)));
  model<World> there(one);
  there.gradients(3), null.rebind("w", there.g.cv());
  null.step(0.02);
  CHECK_FALSE(same_bits(a.weight(0), std::vector<float>(w_before.begin(), w_before.begin() + 240)));
  // Said before finalize(), and still so when memory is planned anew for the same parameters.
  World three;
  model<World> c(three);
  optimizer<muon, typename World::backend> early(three.b);
  c.add_to(early);
  const std::array<const float*, 2> pointers{nullptr, c.h.cv().data};
  early.rebind(pointers), early.finalize();
  for (int t = 0; t < 2; ++t) {
    const auto before = c.weights();
    c.gradients(t), early.step(0.02);
    for (index_t i = 0; i < 3; ++i)
      CHECK(same_bits(c.weight(i), std::vector<float>(before.begin() + i * 240, before.begin() + (i + 1) * 240)));
    CHECK_FALSE(same_bits(c.weights(), before));
    early.set_parameter("v", 0.5);
  }
}

// --- weights written from outside ---

// After three steps the caller halves row 1 of a matrix and calls resync(). Nothing else changes, and what was written
// lasts: a step of a rate next to nothing leaves it there.
template <class World, class Rule, class Types = types<float>>
void writes_last_after_resync(bool kept_of_weight) {
  using W = typename Types::weight;
  for (const bool resync : {true, false}) {
    CAPTURE(resync, Rule::name());
    World one;
    model<World, W> m(one);
    optimizer<Rule, typename World::backend, Types> opt(one.b);
    m.add_to(opt), opt.finalize();
    for (int t = 0; t < 3; ++t) m.gradients(t), opt.step(0.02);
    m.weights();
    const auto state_of_others = state_of_parameter(opt, "w.0");
    // Of two that were written, one is named.
    for (const index_t b : {0, 1})
      for (index_t j = 0; j < 20; ++j)
        m.w.host.v()(1, j, b) = converted<W>(static_cast<double>(m.w.host.v()(1, j, b)) / 2);
    m.w.up();
    const auto written = m.weight(1);
    if (resync) opt.resync("w.1");
    CHECK(state_of_parameter(opt, "w.0") == state_of_others);
    opt.step(1e-12);
    const auto after = m.weight(1);
    double off = 0, size = 0;
    for (std::size_t i = 0; i < after.size(); ++i) {
      off = std::max(off, std::abs(static_cast<double>(after[i]) - static_cast<double>(written[i])));
      size = std::max(size, std::abs(static_cast<double>(written[i])));
    }
    const bool lasts = off < 1e-5 * size;
    CHECK(lasts == (resync || !kept_of_weight));
    // resync() without a write changes no bit of the steps that follow.
    model<World, W> a(one), b(one);
    optimizer<Rule, typename World::backend, Types> with(one.b), without(one.b);
    a.add_to(with), b.add_to(without), with.finalize(), without.finalize();
    for (int t = 0; t < 4; ++t) a.gradients(t), b.gradients(t), with.step(0.02), without.step(0.02), with.resync();
    CHECK(same_bits(a.weights(), b.weights()));
  }
}

// With check_copies, a write without resync() is an error before the next step, which names the matrix, if the rule would
// undo it.
template <class World, class Rule, class Types = types<float>>
void unsynced_writes_are_told(bool kept_of_weight) {
  using W = typename Types::weight;
  CAPTURE(Rule::name());
  World one, two;
  model<World, W> m(one), other(two);
  optimizer<Rule, typename World::backend, Types> opt(one.b, {}, {.check_copies = true}), unchecked(two.b);
  m.add_to(opt), opt.finalize(), other.add_to(unchecked), unchecked.finalize();
  const auto step = [&](int t) { m.gradients(t), other.gradients(t), opt.step(0.02), unchecked.step(0.02); };
  const auto write = [](model<World, W>& to, double value) {
    to.w.down(), to.w.host.v()(1, 7, 1) = converted<W>(value), to.w.up();
  };
  for (int t = 0; t < 3; ++t) step(t);
  CHECK(same_bits(m.weights(), other.weights()));
  for (int t = 3; t < 6; ++t) {
    write(m, 3.0 * t), write(other, 3.0 * t);
    const auto written = m.weights();
    if (kept_of_weight) CHECK_THROWS_WITH(opt.step(0.02), Contains("weight of \"w.1\"") && Contains("resync()"));
    CHECK(opt.steps() == t);
    CHECK(same_bits(m.weights(), written));
    if (t == 4) opt.resync("w.0");  // another one: that does not help
    if (kept_of_weight && t == 4) CHECK_THROWS_WITH(opt.step(0.02), Contains("weight of \"w.1\""));
    opt.resync("w.1"), unchecked.resync("w.1");
    if (t == 4) unchecked.resync("w.0");
    step(t);
    CHECK(same_bits(m.weights(), other.weights()));
  }
  // What is loaded between finalize() and the first step is a write, too; state that is loaded brings its copies along.
  opt.release(), opt.finalize(), write(m, 1.0);
  if (kept_of_weight) CHECK_THROWS_WITH(opt.step(0.02), Contains("weight of \"w.1\""));
  for (const state_tensor& t : opt.state_tensors()) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type));
    opt.read_state(t, bytes.data()), opt.write_state(t, bytes.data());
  }
  opt.step(0.02);
}

// --- parameters that come and go ---

template <class World>
void parameters_come_and_go() {
  World one, two;
  model<World> a(one), b(two), extra(one);
  optimizer<namo, typename World::backend> changing(one.b), fixed(two.b);
  changing.add("w", a.w.v(), a.g.cv());
  changing.add("gone", extra.v.v(), extra.h.cv());
  b.add_to(fixed);
  changing.finalize(), fixed.finalize();
  extra.gradients(77);
  for (int t = 0; t < 8; ++t) {
    a.gradients(t), b.gradients(t);
    if (t == 3) {
      const auto state = state_of_parameter(changing, "w.2");
      changing.drop("gone");
      CHECK_THROWS_WITH(changing.step(0.01), Contains("after add() or drop()"));
      changing.add("v", a.v.v(), a.h.cv());
      CHECK_THROWS_WITH(changing.add("v", extra.v.v(), extra.h.cv()), Contains("parameter name"));
      changing.finalize();
      CHECK(changing.steps() == 3);
      CHECK(state_of_parameter(changing, "w.2") == state);
      CHECK(state_of_parameter(changing, "gone").empty());
      fixed.drop("v");
      fixed.finalize();
      fixed.add("v", b.v.v(), b.h.cv());  // one that comes back begins anew
      fixed.finalize();
    }
    changing.step(0.01), fixed.step(0.01);
    for (index_t i = 0; i < (t < 3 ? 3 : 0); ++i) REQUIRE(same_bits(a.weight(i), b.weight(i)));
  }
  // "v" of `fixed` had moved before it was dropped.
  for (index_t i = 0; i < 3; ++i) CHECK(same_bits(a.weight(i), b.weight(i)));
  CHECK_THROWS_WITH(changing.drop("gone"), Contains("no parameter \"gone\""));
  changing.drop("w"), changing.drop("v");
  CHECK_THROWS_AS(changing.finalize(), bad_order);
}

// --- clipping ---

template <class World, class Rule, class T = float>
void clips_by_the_norm_of_all(double most, double scale) {
  World one, two;
  model<World, T> a(one), b(two);
  using backend = typename World::backend;
  optimizer<Rule, backend, types<T>> clips(one.b, {}, {.scales_gradient = true, .max_norm = most});
  optimizer<Rule, backend, types<T>> by_hand(two.b, {}, {.scales_gradient = true});
  a.add_to(clips), b.add_to(by_hand);
  clips.finalize(), by_hand.finalize();
  typename World::template stepping<decltype(clips)> step(clips);
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-6;
  for (int t = 0; t < 5; ++t) {
    a.gradients(t), b.gradients(t);
    double squares = 0;
    for (const T x : elements(a.g.host.cv())) squares += std::pow(static_cast<double>(x) * scale, 2);
    for (const T x : elements(a.h.host.cv())) squares += std::pow(static_cast<double>(x) * scale, 2);
    const double norm = std::sqrt(squares), factor = std::min(1.0, most / (norm + 1e-6));
    step(0.02, scale), by_hand.step(0.02, static_cast<double>(static_cast<T>(scale * factor)));
    CHECK(clips.gradient_norm() == Approx(norm).epsilon(tolerance));
    const auto x = a.weights(), y = b.weights();
    double off = 0;
    for (std::size_t i = 0; i < x.size(); ++i) off = std::max(off, std::abs(static_cast<double>(x[i] - y[i])));
    CHECK(off < 20 * tolerance);
  }
  // A gradient that is not finite skips the step, as it does without clipping.
  const auto before = a.weights();
  a.gradients(9), a.h.host.v()(1, 1) = std::numeric_limits<T>::quiet_NaN(), a.h.up();
  step(0.02, scale);
  CHECK(same_bits(before, a.weights()));
  CHECK(clips.poll_status().parameters == std::vector<std::string>{"v"});
  CHECK(std::isinf(clips.gradient_norm()));
}

template <class World>
void measuring_changes_nothing() {
  World one, two;
  model<World> a(one), b(two);
  using backend = typename World::backend;
  constexpr double infinite = std::numeric_limits<double>::infinity();
  optimizer<muown, backend> measures(one.b, {}, {.max_norm = infinite});
  optimizer<muown, backend> plain(two.b, {}, {.scales_gradient = true});
  a.add_to(measures), b.add_to(plain);
  measures.finalize(), plain.finalize();
  for (int t = 0; t < 4; ++t) {
    a.gradients(t), b.gradients(t);
    if (t == 2)
      a.g.host.fill([](index_t, index_t, index_t) { return 0; }),
          b.g.host.fill([](index_t, index_t, index_t) { return 0; });
    if (t == 2)
      a.h.host.fill([](index_t, index_t, index_t) { return 0; }),
          b.h.host.fill([](index_t, index_t, index_t) { return 0; });
    a.g.up(), b.g.up(), a.h.up(), b.h.up();
    measures.step(0.01), plain.step(0.01);
    CHECK(same_bits(a.weights(), b.weights()));
    CHECK((measures.gradient_norm() == 0) == (t == 2));
  }
  CHECK_THROWS_WITH(plain.gradient_norm(), Contains("max_norm"));
  CHECK_THROWS_WITH((optimizer<muon, backend>(one.b, {}, {.max_norm = -1})), Contains("max_norm is -1"));
  // Left out of the step, left out of the norm.
  a.gradients(5);
  measures.leave_out({"w"});
  measures.step(0.01);
  double squares = 0;
  for (const float x : elements(a.h.host.cv())) squares += static_cast<double>(x) * static_cast<double>(x);
  CHECK(measures.gradient_norm() == Approx(std::sqrt(squares)).epsilon(1e-6));
}

// --- looking on ---

// What an observer says of each matrix is what the caller's own copies say; the steps are those that nobody observes.
template <class World>
void observed_steps() {
  World one, two;
  model<World> a(one), b(two);
  using backend = typename World::backend;
  optimizer<muown, backend> seen(one.b), alone(two.b);
  a.add_to(seen), b.add_to(alone);
  seen.finalize(), alone.finalize();
  typename World::template stepping<decltype(seen)> step(seen);
  std::vector<std::size_t> stepped;
  seen.after_bucket([&](std::size_t bucket) { stepped.push_back(bucket); });
  step_observer look(seen, 40);
  CHECK_THROWS_AS(look.after(), bad_order);
  for (int t = 0; t < 5; ++t) {
    a.gradients(t), b.gradients(t);
    if (t == 2) seen.leave_out({"w.1"}), alone.leave_out({"w.1"});
    if (t == 3) {  // a skipped step
      seen.leave_out(std::span<const std::string>()), alone.leave_out(std::span<const std::string>());
      for (auto* m : {&a, &b})
        m->h.host.fill([](index_t, index_t, index_t) { return std::numeric_limits<double>::infinity(); }), m->h.up();
    }
    std::vector<mat> before;
    for (index_t i = 0; i < 4; ++i) a.weight(i);
    for (index_t i = 0; i < 3; ++i) before.push_back(to_mat(a.w.host.cv().matrices(i, 1)));
    before.push_back(to_mat(a.v.host.cv()));
    look.before();
    step(0.02), alone.step(0.02);
    const auto seen_now = look.after();
    REQUIRE(same_bits(a.weights(), b.weights()));
    REQUIRE(seen_now.size() == 4);
    for (const step_observation& o : seen_now) {
      const index_t i = o.name == "v" ? 3 : o.name.back() - '0';
      CAPTURE(t, o.name);
      const bool out = t == 3 || (t == 2 && i == 1);
      const mat w = i < 3 ? to_mat(a.w.host.cv().matrices(i, 1)) : to_mat(a.v.host.cv()),
                g = i < 3 ? to_mat(a.g.host.cv().matrices(i, 1)) : to_mat(a.h.host.cv()),
                u = before[static_cast<std::size_t>(i)] - w;
      CHECK(o.weight_norm == Approx(frobenius(w)).epsilon(1e-5));
      CHECK(o.update_norm == Approx(frobenius(u)).epsilon(1e-4));
      CHECK(o.update_to_weight == Approx(frobenius(u) / frobenius(w)).epsilon(1e-4));
      CHECK(o.gradient_norm == Approx(out ? 0 : frobenius(g)).epsilon(1e-5));
      CHECK(o.cosine == Approx(out ? 0 : dot(u, g) / frobenius(u) / frobenius(g)).margin(1e-4));
      CHECK(o.spectral_norm == Approx(spectral_norm(w)).epsilon(2e-2));
      CHECK(o.spectral_norm <= spectral_norm(w) * (1 + 1e-5));
      CHECK((o.update_norm == 0) == out);
    }
  }
  CHECK(std::find(stepped.begin(), stepped.end(), 1U) != stepped.end());
  // Parameters may come: the observer makes room for them.
  typename World::template matrix<float> more(one, 5, 7), gradient(one, 5, 7);
  seen.add("more", more.v(), gradient.cv());
  CHECK_THROWS_AS(look.before(), bad_order);
  seen.finalize();
  look.before(), seen.step(0.02);
  const auto all = look.after();
  REQUIRE(all.size() == 5);
  for (const auto& o : all)
    if (o.name == "more")
      CHECK((o.weight_norm == 0 && o.update_to_weight == 0 && o.cosine == 0 && o.spectral_norm == 0));
}

}  // namespace matopt::test::training
