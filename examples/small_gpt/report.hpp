// The result of `compare`: a table for the terminal, report.json, and one self-contained page with plots (by gnuplot).
#pragma once
#include <string>
#include <vector>

#include "compression.hpp"

namespace small_gpt {

struct comparison {
  struct entry {
    std::string rule, signature;
    double lr = 0;
    train_result training;
    std::vector<matrix_report> matrices;
    std::vector<compressed_model> plain, whitened;  // one per keep ratio
    double mean_stable_rank() const;
    double mean_spectral_norm() const;
  };
  run_settings settings;  // of all runs, but for the rule and its rate
  std::string processor;
  int threads = 0;
  std::vector<double> keep{0.8, 0.6, 0.4, 0.2};
  std::vector<entry> entries;
  matopt::index_t dense_bytes = 0;
};

// Throws an error that names the package if gnuplot cannot be run; called before the training begins.
void require_gnuplot();

std::string table_of(const comparison&);  // Markdown
void write_json(const comparison&, const std::string& path);
void write_page(const comparison&, const std::string& path);

}  // namespace small_gpt
