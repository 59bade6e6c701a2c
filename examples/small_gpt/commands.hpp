// What the program does, one function per command. Each returns how the program ends, or throws.
#pragma once
#include <cstdint>
#include <matopt/eigen.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "exit_status.hpp"
#include "run_settings.hpp"

namespace small_gpt {

struct options {
  run_settings run;
  std::string out = "run", checkpoint, resume, branch, data, validation, prompt, method = "whitened", save, text,
              format = "safetensors";
  bool out_given = false, force = false, dry_run = false, no_compression = false, keep_given = false, entropy = false;
  std::set<std::string> given;                                         // the settings of `run` that the user gave
  std::vector<std::string> runs;                                       // folders, for a report
  std::vector<std::string> rules{"adamw", "muon", "numuon", "muown"};  // "name" or "name=rate"
  std::vector<double> keep{0.8, 0.6, 0.4, 0.2};
  std::vector<int> stored_bits{32};  // for a report
  int threads = 0, length = 500, calibration = 128, bits = 32;
  std::optional<int> eval_windows;   // unless given, as the training had
  std::vector<std::int32_t> tokens;  // for logits
  double temperature = 0.8;
  int top_k = 0;
  std::uint64_t sample_seed = 1;
};

// Says which of the settings that the user gave have no effect.
void note_idle_settings(const run_settings& s, const std::set<std::string>& given);

exit_status train(const options&, matopt::eigen_backend&);
exit_status compare(const options&, matopt::eigen_backend&);  // in compare.cpp
exit_status sweep(const options&, matopt::eigen_backend&);    // in sweep_command.cpp; the file is `checkpoint`
exit_status report(const options&, matopt::eigen_backend&);   // in report_command.cpp
exit_status evaluate(const options&, matopt::eigen_backend&);
exit_status sample(const options&, matopt::eigen_backend&);
exit_status compress(const options&, matopt::eigen_backend&);
exit_status inspect(const options&, matopt::eigen_backend&);
exit_status export_model(const options&, matopt::eigen_backend&);  // in export_command.cpp
exit_status logits(const options&, matopt::eigen_backend&);        // in export_command.cpp
exit_status tokenize(const options&);                              // in tokenize.cpp
exit_status list_rules();

}  // namespace small_gpt
