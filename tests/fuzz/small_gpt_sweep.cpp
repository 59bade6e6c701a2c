// The plan of a sweep. toml++ reads the file; what it makes of it, here in JSON, is checked by name.
#include <small_gpt/sweep.cpp>

#include "small_gpt_rules.hpp"
#include "target.hpp"

namespace small_gpt {
// In the place of analysis.cpp and trained_model.cpp, which compress and load models.
void analysis_options::validate(const std::string&) const {}
gpt_config shape_of(const run_settings& s, int vocabulary) {
  const auto kind = s.architecture == "nanogpt" ? architecture::nanogpt : architecture::modern;
  return {kind, s.layers, s.heads, s.width, s.context, vocabulary};
}
}  // namespace small_gpt

FUZZ(small_gpt_sweep) {
  fuzz::refuse_or([&] {
    const auto plan = small_gpt::sweep_plan::from_json(nlohmann::json::parse(data, nullptr, false));
    fuzz::require(!plan.seeds.empty() && !plan.configurations.empty(), "a plan of nothing");
    const std::vector<small_gpt::sweep_plan::losses> none(plan.configurations.size());
    for (const auto& run : plan.needed(none)) {
      small_gpt::validate(run);
      fuzz::require(plan.label_of(run).size() <= 255, "a label that is no name of a folder");
    }
    fuzz::require(plan.to_compress(none).empty(), "models of runs that are not there");
  });
}
