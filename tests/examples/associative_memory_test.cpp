// examples/associative_memory: the gradient against differences, and what arXiv 2602.05725 says of the rules, at K 64.
#include <algorithm>
#include <catch2/catch.hpp>

#include "associative_memory/experiment.hpp"

using namespace associative_memory;

namespace {

task eight_groups(std::uint64_t seed) { return {.items = 64, .groups = 8, .exponent = 1.5, .noise = 0, .seed = seed}; }

matrix gaussian(index_t n, std::uint32_t stream) {
  matrix w(n, n);
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < n; ++i)
      w(i, j) = matopt::philox::normal(9, stream, 0, static_cast<std::uint64_t>(i + j * n));
  return w;
}

}  // namespace

TEST_CASE("associative_memory: the gradient is the loss's derivative", "[associative_memory]") {
  for (const double noise : {0.0, 0.3}) {
    const memory facts({.items = 12, .groups = 3, .exponent = 1.2, .noise = noise, .seed = 4});
    const matrix w = 2 * gaussian(12, 5);
    const auto here = facts.at(w);
    for (std::uint32_t direction = 6; direction < 9; ++direction) {
      const matrix d = gaussian(12, direction);
      const auto change = [&](double h) { return facts.at(w + h * d).loss - facts.at(w - h * d).loss; };
      constexpr double h = 1e-3;  // fourth order: the error is near 1e-12
      const double numeric = (8 * change(h) - change(2 * h)) / (12 * h);
      CHECK(here.gradient.cwiseProduct(d).sum() == Approx(numeric).epsilon(1e-8));
    }
  }
}

TEST_CASE("associative_memory: losses at known weights", "[associative_memory]") {
  for (const double noise : {0.0, 0.3}) {
    CAPTURE(noise);
    const memory facts({.items = 12, .groups = 3, .exponent = 1.2, .noise = noise, .seed = 4});
    const double anything = noise / 12, right = 1 - noise + anything;
    const double entropy = -right * std::log(right) - (noise > 0 ? 11 * anything * std::log(anything) : 0);
    const auto start = facts.at(matrix::Zero(12, 12));
    CHECK(start.loss == Approx(std::log(12.0) - entropy));
    for (const double l : start.group_loss) CHECK(l == Approx(start.loss));
    // The right logits lead by log(right / anything): the data's own probabilities, and no loss is left.
    const double lead = noise > 0 ? std::log(right / anything) : 40;
    const auto best = facts.at(lead * facts.outputs() * facts.inputs().transpose());
    CHECK(best.loss == Approx(0).margin(1e-12));
    CHECK(best.gradient.norm() == Approx(0).margin(1e-12));
    // The loss is that of the groups, weighed by frequencies 1, 2^-1.2, 3^-1.2.
    const auto somewhere = facts.at(gaussian(12, 5));
    double weighed = 0, total = 0;
    for (index_t i = 0; i < 3; ++i) {
      const double share = std::pow(static_cast<double>(i + 1), -1.2);
      weighed += share * somewhere.group_loss(i), total += share;
    }
    CHECK(somewhere.loss == Approx(weighed / total));
    CHECK(somewhere.tail_to_head() == Approx(somewhere.group_loss(2) / somewhere.group_loss(0)));
  }
}

TEST_CASE("associative_memory: impossible tasks are refused by name", "[associative_memory]") {
  CHECK_THROWS_WITH(memory({.items = 12, .groups = 5}), Catch::Contains("items is 12"));
  CHECK_THROWS_WITH(memory({.items = 12, .groups = 0}), Catch::Contains("groups is 0"));
  CHECK_THROWS_WITH(memory({.items = 12, .groups = 3, .noise = 1}), Catch::Contains("noise"));
}

TEST_CASE("associative_memory: Muon learns rare facts like frequent ones", "[associative_memory]") {
  const memory facts(eight_groups(1));
  const training exact = train(facts, without_momentum<matopt::svd_polar>(), 1, 20);
  CHECK(exact.steps_to(1e-3) > 8);
  CHECK(exact.steps_to(1e-3) <= 13);
  CHECK(exact.tail_to_head[8] < 1.5);
  CHECK(exact.tail_to_head[8] > 1 / 1.5);
  const training iterated = train(facts, without_momentum<matopt::newton_schulz<>>(), 1, 20);
  CHECK(iterated.steps_to(1e-3) > 8);
  CHECK(iterated.steps_to(1e-3) <= 20);
  // The oracle that it is compared with, at half the rate.
  const training oracle =
      train(facts, without_momentum(task_basis_sign{matopt::view_of(facts.inputs()), matopt::view_of(facts.outputs())}),
            0.5, 20);
  CHECK(std::abs(oracle.steps_to(1e-3) - exact.steps_to(1e-3)) <= 1);
  CHECK(oracle.tail_to_head[8] == Approx(1).epsilon(1e-6));

  std::vector<std::pair<double, double>> decline;
  for (std::size_t t = 8; t <= 12; ++t) decline.emplace_back(static_cast<double>(t), std::log(exact.loss[t]));
  CHECK(slope(decline) == Approx(-1).margin(0.05));
}

TEST_CASE("associative_memory: gradient descent learns facts by their frequency", "[associative_memory]") {
  const memory facts(eight_groups(1));
  const training t = train(facts, without_momentum<matopt::no_orthogonalizer>(), 4 / facts.most_frequent(), 1000);
  CHECK(t.steps_to(1e-3) == -1);
  CHECK(t.loss[1000] == Approx(1.04e-3).epsilon(0.02));
  CHECK(t.tail_to_head[1000] > 22);
  CHECK(t.tail_to_head[1000] < 26);
  // One number per fact says the same.
  CHECK(descent_at_scale(eight_groups(1), 4).front().second == Approx(t.loss[64]).epsilon(1e-9));
  CHECK(descent_at_scale(eight_groups(1), 4)[3].second == Approx(t.loss[512]).epsilon(1e-9));

  // As long a step as Muon's does not help the rare ones; nor do signs in a basis that is not the task's.
  for (const double limit : {1e-2, 1e-3}) {
    const training longer = train(facts, without_momentum<fixed_length>(), 1, 60, limit);
    CHECK(longer.loss.back() < limit);
    CHECK(longer.tail_to_head.back() > 10);
    const training signs = train(facts, without_momentum<entrywise_sign>(), 1 / 8.0, 60, limit);
    CHECK(signs.loss.back() < limit);
    CHECK(signs.tail_to_head.back() > 10);
  }
}

TEST_CASE("associative_memory: the embeddings do not matter", "[associative_memory]") {
  std::vector<training> exact, descent;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const memory facts(eight_groups(seed));
    exact.push_back(train(facts, without_momentum<matopt::svd_polar>(), 1, 12));
    descent.push_back(train(facts, without_momentum<matopt::no_orthogonalizer>(), 4 / facts.most_frequent(), 200));
  }
  REQUIRE((memory(eight_groups(1)).inputs() - memory(eight_groups(2)).inputs()).norm() > 1);
  REQUIRE((memory(eight_groups(1)).inputs() - memory(eight_groups(1)).outputs()).norm() > 1);
  for (std::size_t s = 1; s < 3; ++s) {
    for (std::size_t t = 0; t < exact[0].loss.size(); ++t)
      CHECK(exact[s].loss[t] == Approx(exact[0].loss[t]).epsilon(1e-8));
    for (std::size_t t = 0; t < descent[0].loss.size(); ++t)
      CHECK(descent[s].loss[t] == Approx(descent[0].loss[t]).epsilon(1e-8));
  }
}
