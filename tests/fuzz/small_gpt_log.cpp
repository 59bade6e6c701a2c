// The log of a run, as reports, sweeps and resumptions read it: JSON in lines, of which the last may be cut off.
#include <small_gpt/run_record.cpp>

#include "small_gpt_rules.hpp"
#include "target.hpp"

FUZZ(small_gpt_log) {
  fuzz::refuse_or([&] {
    const auto run = small_gpt::run_record::read(fuzz::folder_with("log.jsonl", data));
    fuzz::require(run.effective.is_object(), "no settings");
    fuzz::require(run.settings.lr > 0, "settings that are not resolved");
    run.last_step(), run.bits_per_nat();
    small_gpt::write_csv(run);
  });
}
