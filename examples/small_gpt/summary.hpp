// What a set of runs says about rules: the runs sorted into configurations, their best rates, and what of it is noise.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "run_record.hpp"

namespace small_gpt {

// The validation loss in nats per token: linear between the points of an ascending curve; its end beyond them.
double validation_at(const run_record& r, double at, bool seconds);

struct summary {
  struct run {
    run_record record;
    nlohmann::json analysis;  // analysis.hpp; null if there is none
    bool diverged() const { return !record.diverged.empty(); }
    double tokens() const;   // trained
    double seconds() const;  // of training steps
  };
  struct spread {
    double median = 0, least = 0, greatest = 0;
    std::size_t count = 0;
    static spread of(std::vector<double> values);
  };
  struct rate {
    double lr;
    std::vector<std::size_t> runs;  // one per seed, places in `runs`
    std::size_t diverged = 0;
    spread loss;  // at equal tokens; infinite if half of the runs or more diverged
  };
  // Runs that differ in nothing but rate and seed.
  struct configuration {
    std::string label;        // the rule, and what else tells it from the others
    std::vector<rate> rates;  // ascending
    std::size_t best = 0;     // place in `rates`: the least median
    bool at_edge = false;     // the best rate is the lowest or highest that was tried
    std::size_t example = 0;  // of the best rate the run with the median loss, place in `runs`
    spread at_equal_time;     // of the best rate
    double bits_per_byte = 0;
    std::string verdict;  // against the best configuration
  };

  std::vector<run> runs;
  std::vector<configuration> configurations;  // by loss, the best first; those that always diverged last
  double tokens = 0, seconds = 0;             // the common ones, at which losses are compared; NaN if not known
  // Nats per token compare no vocabularies: losses are in bits per byte if the runs have several, and all tell them.
  bool in_bits = false;
  bool comparable = true;          // not so if there are several vocabularies, and bits per byte are not known
  std::vector<std::string> texts;  // what the runs learned from; of several texts no losses compare
  const char* unit() const { return in_bits ? "bits per byte" : "nats per token"; }
  double in_unit(const run_record& r, double nats) const { return in_bits ? nats * r.bits_per_nat() : nats; }
  // The validation loss in that unit, after so many tokens or seconds of training.
  double loss_at(const run_record& r, double at, bool seconds) const {
    return in_unit(r, validation_at(r, at, seconds));
  }
  std::optional<double> deviation;  // between seeds of one configuration and rate, pooled; if there were any
  int degrees_of_freedom = 0;       // behind it
  nlohmann::json common;            // settings in effect that all runs share

  // Needs one run at least. Runs that have not ended, and copies of a run, are left out, and named on stderr.
  static summary of(std::vector<run> runs);
};

}  // namespace small_gpt
