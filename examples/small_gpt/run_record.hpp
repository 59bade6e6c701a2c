// What the log of a run tells, as the program reads it back: of any version, with the lines that a later resumption
// replaced left out.
#pragma once
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "run_settings.hpp"

namespace small_gpt {

struct run_record {
  struct step_line {
    int step = 0;
    // Seconds are those of training steps; elapsed ones also hold validations, measurements and checkpoints. What an
    // old log does not tell is NaN.
    double loss = NAN, smoothed = NAN, lr = NAN, other_lr = NAN, gradient_norm = NAN, seconds = NAN, elapsed = NAN,
           tokens_per_second = NAN, optimizer_share = NAN;
    double qk_max = NAN, qk_clipped = NAN;  // with QK-clip
  };
  struct validation_line {
    int step;
    double loss, bits_per_byte, seconds;  // the loss is finite
  };
  struct measurement_line {
    int step;
    nlohmann::json matrices;
  };

  std::string folder;
  nlohmann::json header;     // the first line: settings, parameters, threads; and since 0.2 version, command, ...
  run_settings settings;     // as the header has them
  nlohmann::json effective;  // with every setting of the rules; of an old log, what this program makes of them
  std::vector<step_line> steps;
  std::vector<validation_line> validations;
  std::vector<measurement_line> measurements;
  std::vector<std::pair<int, std::vector<std::string>>> skipped;
  int diverged_at = -1;
  std::string diverged;  // why; empty if it did not

  bool done = false;  // it ended with its last step, a validation, and a checkpoint of that

  bool finished() const { return done || !diverged.empty(); }  // there is nothing left to train
  double tokens_per_step() const { return static_cast<double>(settings.batch) * settings.context; }
  // A run that was resumed at its end, in another folder, has validations only: of these the step, and NaN else.
  step_line last_step() const;
  // What makes nats per token bits per byte of this run's text; NaN if the log does not tell.
  double bits_per_nat() const;

  // Of the folder's log.jsonl. A line that was cut off is left out. Throws bad_file, also for what no version writes.
  static run_record read(const std::string& folder);
};

// Tables beside the log, for programs that read no JSON: steps.csv and measurements.csv.
void write_csv(const run_record& run);

}  // namespace small_gpt
