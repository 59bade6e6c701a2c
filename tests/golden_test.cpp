// Every golden case, through the rules and the reader that examples/replay gives its users.
#include <catch2/catch.hpp>

#include <map>
#include <matopt/eigen.hpp>
#include <string>

#include "case.hpp"
#include "support/tolerance.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// Runs the cases of a file; how many there were of each rule.
std::map<std::string, int> replay_file(const std::string& name) {
  eigen_backend cpu(2);
  std::map<std::string, int> seen;
  for (const auto& c : replay::read_cases(std::string(MATOPT_GOLDEN_DIR) + "/" + name)) {
    CAPTURE(c.at("label").get<std::string>(), c.at("shape").dump());
    ++seen[c.at("rule").get<std::string>()];
    const auto result = replay::run<double>(cpu, c);
    REQUIRE(result.error);
    CHECK(*result.error < tolerance<double>);
  }
  return seen;
}

}  // namespace

TEST_CASE("golden: the Muon family", "[golden]") {
  const auto seen = replay_file("muon_family.json");
  CHECK(seen == std::map<std::string, int>{{"muon_kj", 6},
                                           {"muon_torch", 6},
                                           {"muon_optax", 6},
                                           {"moonlight", 3},
                                           {"normuon", 12},
                                           {"adamuon", 9},
                                           {"muon_plus", 15},
                                           {"muon_nsr", 6},
                                           {"muon_vs", 9},
                                           {"namo", 6},
                                           {"namo_d", 6},
                                           {"adamw", 6}});
}

TEST_CASE("golden: estimators and baselines", "[golden]") {
  const auto seen = replay_file("estimators_and_baselines.json");
  CHECK(seen == std::map<std::string, int>{{"reg", 9},
                                           {"mars_adamw", 6},
                                           {"mars_lion", 3},
                                           {"mars_shampoo", 3},
                                           {"mars_m", 9},
                                           {"mars_m_efficient", 3},
                                           {"muon_mvr", 6},
                                           {"muon_storm", 3},
                                           {"pnm", 6},
                                           {"adapnm", 3},
                                           {"soap", 3},
                                           {"lion", 3},
                                           {"scion", 15},
                                           {"dion", 6},
                                           {"polargrad", 3}});
}

TEST_CASE("golden: numuon", "[golden]") {
  CHECK(replay_file("numuon.json") == std::map<std::string, int>{{"numuon", 18}});
}

TEST_CASE("golden: muown and angular muown", "[golden]") {
  CHECK(replay_file("muown.json") == std::map<std::string, int>{{"muown", 24}, {"angular_muown", 9}});
}

TEST_CASE("golden: orthogonalizers", "[golden]") {
  CHECK(
      replay_file("orthogonalizers.json") ==
      std::map<std::string, int>{{"polar_exact", 3}, {"newton_schulz5", 3}, {"polar_express5", 3}, {"top_k_exact", 3}});
}

TEST_CASE("golden: compression", "[golden]") {
  CHECK(replay_file("compression.json") == std::map<std::string, int>{{"truncated_svd", 6}, {"svd_llm_whitening", 6}});
}

TEST_CASE("golden: new members", "[golden]") {
  const auto seen = replay_file("new_members.json");
  CHECK(seen == std::map<std::string, int>{{"soap_muon", 8},
                                           {"muon2", 6},
                                           {"dion2", 9},
                                           {"nordion2", 9},
                                           {"turbo_muon", 6},
                                           {"muon_8bit", 12},
                                           {"muon_h", 3},
                                           {"normuon_h", 3},
                                           {"aurora", 3},
                                           {"aol_quintic4", 6},
                                           {"aol_flash4", 3},
                                           {"emerging_aol4", 3},
                                           {"newton_schulz12", 3},
                                           {"newton_schulz12_schatten4", 3},
                                           {"polar_express_dion", 3},
                                           {"contra_direction", 3},
                                           {"aurora_direction", 3},
                                           {"kl_factor_update", 3},
                                           {"soap_muon_precondition", 3},
                                           {"tail_average", 3},
                                           {"ema_nesterov", 3},
                                           {"kl_soap", 2},
                                           {"kl_soap_authors", 1},
                                           {"kl_shampoo", 2},
                                           {"kl_soap_h", 2},
                                           {"qk_clip", 3},
                                           {"blockwise_quantize", 3},
                                           {"dynamic_code", 1},
                                           {"e4m3_code", 1},
                                           {"coefficient_report", 10}});
}
