// Everything that determines a training run; written to the log and to every checkpoint, and read back by --resume.
#pragma once
#include <cstdint>
#include <matopt/core/settings.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace small_gpt {

struct run_settings {
  std::string data;
  std::string vocabulary = "character";  // or byte, pairs; of a folder of tokens it is the folder's
  double train_fraction = 0.9;

  std::string architecture = "modern";  // or nanogpt
  int layers = 4, heads = 4, width = 128, context = 64;

  std::string rule = "muon";
  std::vector<std::string> set;  // "key=value" for the rule
  double lr = 0;                 // of the hidden matrices; 0: the rule's own
  double other_lr = 0;           // AdamW, for everything else; 0: its own
  std::vector<std::string> set_other;
  std::string schedule = "wsd";  // or cosine, constant
  int warmup = -1;               // steps; -1: 2 % of the iterations
  double decay_fraction = 0.3;   // wsd: the part of the training in which the rate falls
  double lr_floor = 0;           // the rate's end, as a fraction
  double clip = 0;               // bound of the global gradient norm; 0: none

  int batch = 64;  // sequences per step
  int iterations = 1000;
  std::uint64_t seed = 1;
  int shards = 2;           // groups of sequences whose gradients are added; results depend on it, not on the threads
  int eval_interval = 100;  // steps
  int eval_windows = 512;   // validation windows; 0: the whole validation text
  int checkpoint_interval = 500;

  // Since 0.2; a log or checkpoint without them is read as if it had these values.
  int vocabulary_size = 4096;        // of pairs, and of tokens in a folder that does not say
  int measure_interval = 100;        // steps between measurements of the matrices; 0: none
  std::string checkpoints = "last";  // which are kept: last, all, or thinned
  std::string device = "cpu";        // or cuda, cuda:1, ...
  std::string precision;             // of products: float, or on a GPU bf16; empty: the device's own
  int micro_batch = 0;               // on a GPU: sequences that go through the model at once; 0: chosen by it
  double qk_clip = 0;                // largest logit of attention that QK-clip tolerates; 0: no QK-clip

  bool operator==(const run_settings&) const = default;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(run_settings, data, vocabulary, train_fraction, architecture, layers, heads, width,
                                   context, rule, set, lr, other_lr, set_other, schedule, warmup, decay_fraction,
                                   lr_floor, clip, batch, iterations, seed, shards, eval_interval, eval_windows,
                                   checkpoint_interval, vocabulary_size, measure_interval, checkpoints, device,
                                   precision, micro_batch, qk_clip)

// Throws bad_value for the first setting outside its range; the model's shape is checked by gpt_config.
void validate(const run_settings&);

// Of the settings with these names ("lr_floor") those that have no effect beside the others, a line each.
std::vector<std::string> without_effect(const run_settings&, const std::set<std::string>& given);

// With rates and warmup that were left to the program filled in. Throws if a rule without a rate of its own got none.
run_settings resolved(run_settings);

// The settings that the rules were given: those set by the user, those fitted to the number of iterations, and beta2 of
// the AdamW for everything else.
std::vector<matopt::setting> rule_settings(const run_settings&);
std::vector<matopt::setting> other_settings(const run_settings&);

// A setting that is given twice, or under two of its names, has one value that is not used: an error that names `where`.
void refuse_doubled(const std::string& where, const std::vector<std::string>& set);

// Those of the settings "key=value" whose value is not the rule's default. All of them, if this program does not know the
// rule, as when a report is made of another program's runs.
std::vector<matopt::setting> unlike_defaults(const std::string& rule, const std::vector<std::string>& set);

// As JSON, and back. A path of the text that is not UTF-8 goes in hexadecimal, as "data_hex". Reading throws a bad_file
// that names what is unknown, missing, or of another type.
nlohmann::json to_checked_json(const run_settings&);
run_settings from_checked_json(const nlohmann::json&);

// What really ran: the same, with every setting of both rules by name under "set" and "set_other", defaults included.
nlohmann::json effective_settings(const run_settings&);

// Settings that an older version did not have, with the values that they have had then.
void add_later_settings(nlohmann::json& settings);

// "\n  seed: file 1, here 5" for every entry of two effective settings that differs, but for the path of the text.
std::string differences(const nlohmann::json& file, const nlohmann::json& here, const std::string& prefix = "");

}  // namespace small_gpt
