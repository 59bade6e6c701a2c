// The result of `compare`: a table for the terminal, report.json, and one self-contained page with plots (by gnuplot).
#pragma once
#include <string>
#include <vector>

#include "compression.hpp"
#include "trainer.hpp"

namespace small_gpt {

struct comparison {
  struct entry {
    std::string signature;
    run_settings settings;  // its own, with its rule and rates
    train_result training;
    // Of a run that diverged these three are empty.
    std::vector<matrix_report> matrices;
    std::vector<compressed_model> plain, whitened;  // one per keep ratio
    bool diverged() const { return training.end == outcome::diverged; }
    double mean_stable_rank() const;
    double mean_spectral_norm() const;
  };
  run_settings settings;  // what all runs have in common: not the rule, nor its rate
  std::string processor;
  int threads = 0;
  std::vector<double> keep{0.8, 0.6, 0.4, 0.2};
  std::vector<entry> entries;
  matopt::index_t dense_bytes = 0;
};

std::string table_of(const comparison&);  // Markdown
void write_json(const comparison&, const std::string& path);
void write_page(const comparison&, const std::string& path);

}  // namespace small_gpt
