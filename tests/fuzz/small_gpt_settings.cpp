// The settings in a checkpoint of small_gpt: JSON that is checked by name.
#include "small_gpt_rules.hpp"
#include "target.hpp"

FUZZ(small_gpt_settings) {
  fuzz::refuse_or([&] {
    const auto s = small_gpt::from_checked_json(nlohmann::json::parse(data, nullptr, false));
    const auto again = small_gpt::to_checked_json(small_gpt::from_checked_json(small_gpt::to_checked_json(s)));
    fuzz::require(again == small_gpt::to_checked_json(s), "other settings came back");
    small_gpt::validate(s);
    small_gpt::differences(small_gpt::effective_settings(s), again);
  });
}
