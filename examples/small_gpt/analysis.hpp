// What a report says of a finished run beyond its log: the spectra of its matrices at the end, and the loss and size
// after each way of compressing it. It takes a while, so it is kept beside the run as analysis.json.
#pragma once
#include <matopt/eigen.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "run_record.hpp"

namespace small_gpt {

struct analysis_options {
  std::vector<double> keep{0.8, 0.6, 0.4, 0.2};
  int calibration = 128;  // training sequences behind the compressors
  std::string data;       // the text, if it is not where the run had it
  bool compress = true;
  bool any_known = false;  // compressed models that analysis.json holds will do, whatever fractions it has
};

// JSON: "matrices" with name, shape, spectral_norm, stable_rank, effective_rank, row_norms, coherence, singular_values;
// "dense" with loss and bytes; "compressed", one entry per fraction kept: keep, bytes, ridge, and the loss after each
// method; "evaluated_on", the device of these losses: the run's, if this program has it. The losses are in
// compressed.csv, too. What analysis.json holds already is not computed again. Null, with the reason on stderr, if the
// run has no checkpoint of its end, or its text is gone.
nlohmann::json analysis_of(const run_record& run, matopt::eigen_backend& cpu, const analysis_options& options);

// What analysis.json holds, if that is enough; else null.
nlohmann::json known_analysis(const run_record& run, const analysis_options& options);

}  // namespace small_gpt
