// Compresses the hidden matrices of a trained model, and tells what that costs.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <matopt/compress/truncate.hpp>
#include <matopt/eigen.hpp>
#include <matopt/metrics/weight_rate.hpp>
#include <string>
#include <vector>

#include "trained_model.hpp"

namespace small_gpt {

enum class method { svd, asvd, whitened };
method method_named(const std::string& name);

// What a layer's inputs looked like on training text: H = sum x x^T and sum |x|, by index of the parameter.
struct calibration {
  struct layer {
    matopt::dense<double> gram;
    std::vector<double> magnitude;
  };
  std::map<std::size_t, layer> layers;
  matopt::index_t tokens = 0;

  static void check(int sequences);  // throws if it is no number of sequences to take
  static calibration of(trained_model& m, matopt::eigen_backend& cpu, int sequences);
};

// How a file holds the elements of hidden matrices and of their factors; everything else is in floats.
struct storage {
  int bits = 32;         // 32 or 16: floats or bfloat16; 8 or 4: whole numbers, as quantized_rows.hpp says
  bool entropy = false;  // whole numbers are entropy-coded (coded_tensors.hpp)

  static constexpr const char* legal_bits = "one of 32, 16, 8, 4";
  static bool legal(double bits) { return bits == 32 || bits == 16 || bits == 8 || bits == 4; }
};

// Losses are always of a model that was written to a file and read back, and sizes are always of such a file.
struct stored_model {
  double loss = 0;                   // validation, nats per token
  std::uintmax_t bytes = 0;          // of the file
  std::uintmax_t uncoded_bytes = 0;  // of the file without entropy coding
};
struct compressed_model {
  std::map<std::size_t, matopt::factored> layers;  // those that are smaller as factors, by index of the parameter
  matopt::index_t parameters = 0;                  // of the whole model, as stored
  double ridge = 0;                                // the largest that whitening needed
  stored_model stored{};
};

// Validation loss, in nats per token, of a model with the weights of its argument on the text of `m`: on the processor,
// or on the GPU that the settings of `m` name, in their precision. `windows` of 0 are the whole text.
using loss_of = std::function<double(trained_model&)>;
loss_of on_processor(trained_model& m, matopt::eigen_backend& cpu, int windows);
loss_of on_gpu(trained_model& m, int windows);

// For each ratio: keeps that part of the parameters of each hidden matrix, and measures loss and size; the model is
// unchanged afterwards. One list for each way of storing the matrices.
std::vector<std::vector<compressed_model>> compress(trained_model& m, matopt::eigen_backend& cpu, const calibration& c,
                                                    method how, const std::vector<double>& keep, const loss_of& loss,
                                                    const std::vector<storage>& ways = {{}});

// A checkpoint of the compressed model: "name.left" and "name.right" in place of "name".
void save_compressed(trained_model& m, const compressed_model& c, const std::string& path, const storage& way = {});

// What becomes of a model that goes to a file and comes back; without layers, of the model as it is.
stored_model after_round_trip(trained_model& m, matopt::eigen_backend& cpu, const compressed_model& c,
                              const storage& way, const loss_of& loss);

// Spectra and rates of the hidden matrices.
struct matrix_report {
  std::string name;
  matopt::index_t rows, cols;
  double spectral_norm, stable_rank, effective_rank, least_row, greatest_row, coherence;
  matopt::weight_rate rate;
  std::vector<double> values;
};
std::vector<matrix_report> inspect(trained_model& m, matopt::eigen_backend& cpu);

// Of the entries of all hidden matrices together.
matopt::weight_rate rate_of(trained_model& m);

}  // namespace small_gpt
