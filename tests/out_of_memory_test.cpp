// A backend without enough memory: the error says what each slot wanted, and the optimizer is as before finalize().
#include <catch2/catch.hpp>

#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/normuon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/policy/constraint/master_weights.hpp>

#include "support/matrices.hpp"

using namespace matopt;
using namespace matopt::test;
using Catch::Matchers::Contains;

namespace {

// The CPU, out of memory at one of its allocations, or in the first verb after them; it counts the buffers alive.
struct scarce_backend : eigen_backend {
  enum class failure { none, standard, own, verb };
  failure how = failure::none;
  int allocations_left = 0;
  std::shared_ptr<int> alive = std::make_shared<int>(0);

  scarce_backend() : eigen_backend(1) {}

  struct buffer {
    eigen_backend::buffer memory{};
    std::shared_ptr<int> counted{};
    std::byte* data() { return memory.data(); }
  };
  buffer allocate(std::size_t bytes) {
    if (--allocations_left < 0 && how == failure::standard) throw std::bad_alloc();
    if (allocations_left < 0 && how == failure::own) throw out_of_memory("device memory: 7 bytes are free");
    buffer b{eigen_backend::allocate(bytes), {alive.get(), [a = alive](int* n) { --*n; }}};
    ++*alive;
    return b;
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    if (how == failure::verb) throw error("upload: the cable is out");
    eigen_backend::upload(to, from, bytes);
  }
};

using rule_with_state = normuon::with_constraint<master_weights<>>;

struct subject {
  scarce_backend scarce;
  stored<float> w{24, 16}, g{24, 16}, v{8, 40}, h{8, 40};
  any_optimizer<scarce_backend> opt{scarce, rule_with_state{}};

  subject() {
    w.fill_random(1), g.fill_random(2), v.fill_random(3), h.fill_random(4);
    opt.add("w", w.v(), g.cv());
  }
  std::string failed_finalize(scarce_backend::failure how, int allocations) {
    scarce.how = how, scarce.allocations_left = allocations;
    std::string text;
    try {
      opt.finalize();
    } catch (const error& e) {
      text = e.what();
    }
    scarce.how = scarce_backend::failure::none;
    CHECK(*scarce.alive == 0);
    return text;
  }
};

}  // namespace

TEST_CASE("out of memory: the error says what each slot wanted", "[errors]") {
  for (const int allocations : {0, 1}) {
    subject s;
    const memory_report wanted = s.opt.memory();
    s.scarce.how = scarce_backend::failure::standard, s.scarce.allocations_left = allocations;
    CHECK_THROWS_AS(s.opt.finalize(), out_of_memory);
    const std::string text = s.failed_finalize(scarce_backend::failure::standard, allocations);
    const std::size_t asked = allocations == 0 ? wanted.state_bytes : wanted.scratch_bytes;
    CHECK_THAT(text, Contains("out of memory: " + std::to_string(asked) + " bytes asked for; 1 parameters want"));
    REQUIRE(wanted.state.size() >= 3);
    for (const auto& l : wanted.state)
      CHECK_THAT(text, Contains(l.slot + "  " + l.what + "  " + std::to_string(l.bytes) + '\n'));
    CHECK_THAT(text, Contains("momentum  ") && Contains("normalizer  ") && Contains("constraint  master"));
    CHECK_THAT(text, Contains("scratch  " + std::to_string(wanted.scratch_bytes) + '\n'));
    CHECK_THAT(text, Contains("total  " + std::to_string(wanted.total()) + '\n'));
  }
  subject s;
  const std::string text = s.failed_finalize(scarce_backend::failure::own, 1);
  CHECK_THAT(text, Contains("matopt: device memory: 7 bytes are free; 1 parameters") && Contains("scratch  "));
  CHECK(text.find("matopt: ", 1) == std::string::npos);
}

TEST_CASE("out of memory: afterwards the optimizer is as before finalize()", "[errors]") {
  const auto steps = [](subject& s) {
    s.opt.add("v", s.v.v(), s.h.cv());
    s.opt.finalize();
    for (int t = 0; t < 3; ++t) s.opt.step(0.02);
    auto all = elements(s.w.cv());
    const auto more = elements(s.v.cv());
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  subject good;
  const auto expected = steps(good);
  using failure = scarce_backend::failure;
  for (const failure how : {failure::standard, failure::own, failure::verb})
    for (const int allocations : {0, 1}) {
      subject s;
      const std::size_t total = s.opt.memory().total();
      CHECK(!s.failed_finalize(how, allocations).empty());
      CHECK(s.opt.memory().total() == total);
      CHECK_THROWS_AS(s.opt.step(0.1), bad_order);
      CHECK_THROWS_AS(s.opt.state_tensors(), bad_order);
      CHECK(s.opt.bucket_count() == 1);
      CHECK(same_bits(steps(s), expected));
    }
}

TEST_CASE("out of memory: options of a parameter that cannot be planned are not taken", "[errors]") {
  using failure = scarce_backend::failure;
  subject good;
  good.opt.finalize();
  for (const failure how : {failure::standard, failure::own, failure::verb}) {
    subject s;
    s.opt.finalize();
    s.scarce.how = how, s.scarce.allocations_left = 1;
    CHECK_THROWS_AS(s.opt.set_parameter("w", 0.5, 0.1), error);
    s.scarce.how = failure::none;
    s.opt.add("v", s.v.v(), s.h.cv()), s.opt.drop("v"), s.opt.finalize();  // plans anew with what is there
    subject same;
    same.opt.finalize();
    s.opt.step(0.1), same.opt.step(0.1);
    CHECK(same_bits(elements(s.w.cv()), elements(same.w.cv())));
  }
}

TEST_CASE("release() undoes finalize()", "[optimizer]") {
  subject s, fresh;
  s.opt.finalize();
  CHECK(*s.scarce.alive == 2);
  s.opt.set_steps(5);
  s.opt.release();
  CHECK(*s.scarce.alive == 0);
  CHECK(s.opt.steps() == 0);  // schedules begin anew, as the state does
  CHECK_THROWS_AS(s.opt.step(0.1), bad_order);
  s.opt.finalize(), fresh.opt.finalize();
  s.opt.step(0.02), fresh.opt.step(0.02);
  CHECK(same_bits(elements(s.w.cv()), elements(fresh.w.cv())));
}

TEST_CASE("out of memory: parameter groups get their memory together, or not at all", "[errors]") {
  scarce_backend scarce;
  stored<float> w(24, 16), g(24, 16), v(1, 9), h(1, 9);
  w.fill_random(1), g.fill_random(2), v.fill_random(3), h.fill_random(4);
  param_groups groups(scarce, normuon{}, 0.02, adamw{}, 0.01);
  groups.add("w", w.v(), g.cv(), role::hidden);
  groups.add("v", v.v(), h.cv(), role::vector);
  scarce.how = scarce_backend::failure::standard, scarce.allocations_left = 1;
  CHECK_THROWS_AS(groups.finalize(), out_of_memory);
  CHECK(*scarce.alive == 0);
  scarce.how = scarce_backend::failure::none;
  groups.finalize();
  CHECK_THROWS_AS(groups.finalize(), bad_order);
  groups.step();
  CHECK(groups.poll_status());
}
