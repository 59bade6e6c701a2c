// Loss against the bytes of the file, of each configuration of a summary after one way of compressing it and of storing
// what came of that, and where the curves of two configurations cross.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "summary.hpp"

namespace small_gpt {

struct size_curve {
  struct point {
    double bytes, keep;    // keep: the fraction of the parameters of each hidden matrix; 1 for the model as it is
    summary::spread loss;  // over the seeds at the best rate that have been compressed; bits per byte, or nats
  };
  std::size_t configuration;  // place in the summary
  std::vector<point> points;  // by bytes, ascending
};

// Where `below` takes the lead from `above`, when files get smaller. Linear between the points of both curves.
struct size_crossing {
  std::size_t above, below;  // configurations: which one has the least loss of all on either side
  double bytes;
};

// `method` is plain, asvd or whitened. Configurations without compressed models in these bits are left out.
std::vector<size_curve> size_curves(const summary& s, const std::string& method, int bits);
std::vector<int> stored_bits(const summary& s);      // of all compressed models, the most bits first
std::string bits_label(const summary& s, int bits);  // ", 8 bits"; empty if all models have 32
bool in_bits_per_byte(const summary& s);             // else the losses are in nats per token

// Each change of the lead over the sizes that all curves have, from the largest file to the smallest.
std::vector<size_crossing> crossings(const std::vector<size_curve>& curves);

}  // namespace small_gpt
