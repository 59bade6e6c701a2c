// A sweep: rules x rates x seeds x any setting, one folder per run. What has been trained is found by its settings, so
// a sweep that was stopped goes on, and no run is made twice; several processes may work on one sweep.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "analysis.hpp"
#include "rate_search.hpp"
#include "run_record.hpp"

namespace small_gpt {

class sweep_plan {
 public:
  // One row of the result: everything is set but the rate and the seed.
  struct configuration {
    // The rule, what is tried in more than one value, and settings of the rule that are not its defaults.
    std::string label;
    run_settings settings;
    std::set<std::string> given;        // the settings that the file names
    std::vector<double> rates;          // a grid; or
    std::optional<rate_search> search;  // with the first seed; the others then train at the best rate
  };
  // A run's last validation loss, infinite if it diverged; by configuration, rate, and seed.
  using losses = std::map<double, std::map<std::uint64_t, double>>;

  // Of a parsed sweep.toml (README.md says what it holds). Everything is checked before anything is trained.
  static sweep_plan from_json(const nlohmann::json& file);

  // The runs that are needed now: all that a grid has left, the next one of a search.
  std::vector<run_settings> needed(const std::vector<losses>& known) const;
  // The runs whose models are to be compressed by now, of those that are known: all, or of each configuration that
  // lacks none, all seeds at its best rate.
  std::vector<run_settings> to_compress(const std::vector<losses>& known) const;
  std::string label_of(const run_settings& s) const;  // for the run's folder

  std::string out;  // empty if the file does not name it
  std::vector<configuration> configurations;
  std::vector<std::uint64_t> seeds;
  std::optional<analysis_options> compression;  // if the file asks for it
  bool compress_all = false;                    // or those at the best rates
};

// Of a configuration: whether the run with these settings is one of it, that is, differs from it in rate and seed only.
inline auto is_run_of(run_settings s) {
  return [s = std::move(s)](const sweep_plan::configuration& c) mutable {
    s.lr = c.settings.lr, s.seed = c.settings.seed;
    return s == c.settings;
  };
}

// What makes two runs the same: the settings in effect, but for the name of the text and what changes no result.
std::string identity_of(const nlohmann::json& effective);

}  // namespace small_gpt
