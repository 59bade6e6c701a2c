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
  std::vector<int> bits{32};  // of the elements of hidden matrices in the files; each with every fraction
  bool entropy = false;       // what has 8 or 4 bits is entropy-coded
  int calibration = 128;      // training sequences behind the compressors
  std::string data;           // the text, if it is not where the run had it
  bool compress = true;
  bool any_known = false;  // compressed models that analysis.json holds will do, whatever fractions it has

  // Throws bad_value for a list of bits, or of fractions, that means nothing; `where` follows the name in the error.
  void validate(const std::string& where = "") const;
};

// JSON: "matrices" with name, shape, spectral_norm, stable_rank, effective_rank, row_norms, coherence, singular_values,
// rate_shape, rate; "rate", BackSlash's of all of them together, with its shape and eps (metrics/weight_rate.hpp); "dense" with loss and bytes; "compressed", one entry for each number of bits and each fraction kept: keep, bits, bytes,
// ridge, and the loss after each method; "evaluated_on", the device of these losses: the run's, if this program has it.
// Below 32 bits there is an entry for the model that is rounded and not cut, with a fraction of 1. "coded_bytes" of an
// entry is the size of the file after each method if its numbers are entropy-coded; "bytes" is that without. The losses are
// in compressed.csv, too. What analysis.json holds already is not computed again. Null, with the reason on stderr, if
// the run has no checkpoint of its end, or its text is gone.
nlohmann::json analysis_of(const run_record& run, matopt::eigen_backend& cpu, const analysis_options& options);

// Of an entry of "compressed", of any version: the bits, and the size of the file after a method.
int bits_of(const nlohmann::json& entry);
double bytes_of(const nlohmann::json& entry, const std::string& method);
// The loss after that method, in nats per token; NaN if the entry has none.
double loss_in(const nlohmann::json& entry, const std::string& method);
// "shape" or "rate" of BackSlash's rate; NaN if the analysis is of a version without it.
double rate_in(const nlohmann::json& analysis, const char* key);
// That entry of an analysis; null if it has none.
nlohmann::json entry_of(const nlohmann::json& analysis, double keep, int bits);

// What analysis.json holds, if that is enough; else null.
nlohmann::json known_analysis(const run_record& run, const analysis_options& options);

}  // namespace small_gpt
