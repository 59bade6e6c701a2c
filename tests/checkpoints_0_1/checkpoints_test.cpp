// Checkpoints that version 0.1 wrote, loaded by today's code; write.cpp says how the files came about.
#include <catch2/catch.hpp>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <matopt/state_io.hpp>

#include "../contract/contract.hpp"
#include "../contract/published.hpp"
#include "../support/tolerance.hpp"
#include "problem.hpp"

namespace matopt::test {

template <>
const rule_registry<counting_backend, types<float>>& published_rules();
template <>
const rule_registry<counting_backend, types<double>>& published_rules();

}  // namespace matopt::test

using namespace matopt;
using namespace matopt::test;
namespace fs = std::filesystem;

namespace {

// The largest difference between the weights and those of the file, relative to the largest weight.
template <class T>
double distance(const old_problem<T>& p, const std::string& prefix, const tensor_file& file) {
  double most = 0, size = 0;
  for (const auto& m : p.matrices) {
    std::vector<T> then(m.w.size());
    std::memcpy(then.data(), file.tensors.at(prefix + m.name).data.data(), then.size() * sizeof(T));
    for (std::size_t i = 0; i < then.size(); ++i) {
      most = std::max(most, std::abs(static_cast<double>(m.w[i]) - static_cast<double>(then[i])));
      size = std::max(size, std::abs(static_cast<double>(then[i])));
    }
  }
  return most / size;
}

// How many checkpoints there were.
template <class T>
int load_all(const std::string& kind) {
  const auto& rules = published_rules<counting_backend, T>();
  int count = 0;
  for (const auto& entry : fs::directory_iterator(MATOPT_CHECKPOINTS_0_1)) {
    const std::string file_name = entry.path().filename().string(), rule = file_name.substr(0, file_name.find('.'));
    if (file_name != rule + kind) continue;
    ++count;
    CAPTURE(file_name);
    const tensor_file file = tensor_file::load(entry.path().string());
    std::vector<setting> settings;  // by the names that they had then
    for (const auto& [key, value] : file.metadata)
      if (const std::string prefix = "settings."; key.starts_with(prefix))
        settings.push_back({key.substr(prefix.size()), value});
    REQUIRE_FALSE(settings.empty());
    const double lr = std::stod(file.metadata.at("lr"));
    counting_backend cpu(1);
    auto resumed = rules.make(rule, cpu, settings);
    old_problem<T> p;
    for (auto& m : p.matrices)
      std::memcpy(m.w.data(), file.tensors.at("model." + m.name).data.data(), m.w.size() * sizeof(T));
    p.add_to(resumed);
    const restore_report found = restore_state(resumed, file);
    CHECK(found.everything());
    CHECK(found.converted.size() == (rule.starts_with("namo") ? p.matrices.size() : 0));
    CHECK_THAT(found.note, Catch::Contains("no checksums") && Catch::Contains("no settings"));
    CHECK(resumed.steps() == 12);
    for (int t = 12; t < 24; ++t) p.step(resumed, lr, t);
    // Dion divides columns that are nearly dependent, which makes more of the last bits. SOAP and QDWH are factorised
    // by reflections now, where 0.1 took other roads; in SOAP rounding decides between equally right bases.
    const double more = rule == "dion" || rule == "soap" ? 100 : rule == "polargrad_qdwh" ? 10 : 1;
    CHECK(distance(p, "after.", file) < more * tolerance<T>);
  }
  return count;
}

}  // namespace

TEST_CASE("checkpoints of 0.1: every published rule goes on in float", "[checkpoints_0_1]") {
  CHECK(load_all<float>(".float.safetensors") == 61);
}
TEST_CASE("checkpoints of 0.1: every published rule goes on in double", "[checkpoints_0_1]") {
  CHECK(load_all<double>(".double.safetensors") == 61);
}
