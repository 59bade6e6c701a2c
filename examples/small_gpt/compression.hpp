// Compresses the hidden matrices of a trained model, and tells what that costs.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <matopt/compress/truncate.hpp>
#include <matopt/eigen.hpp>
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

// Losses are always of a model that was written to a file and read back, and sizes are always of such a file.
struct compressed_model {
  std::map<std::size_t, matopt::factored> layers;  // those that are smaller as factors, by index of the parameter
  matopt::index_t parameters = 0;                  // of the whole model, as stored
  matopt::index_t dense_parameters = 0;
  double loss = 0, dense_loss = 0;            // validation, nats per token
  std::uintmax_t bytes = 0, dense_bytes = 0;  // of the file
  double ridge = 0;                           // the largest that whitening needed
};

// Validation loss, in nats per token, of a model with the weights of its argument on the text of `m`: on the processor,
// or on the GPU that the settings of `m` name, in their precision. `windows` of 0 are the whole text.
using loss_of = std::function<double(trained_model&)>;
loss_of on_processor(trained_model& m, matopt::eigen_backend& cpu, int windows);
loss_of on_gpu(trained_model& m, int windows);

// For each ratio: keeps that part of the parameters of each hidden matrix and measures the loss; the model is unchanged
// afterwards. `bits` (32, 8 or 4) are those of the elements of hidden matrices and their factors in the file, also of the
// model as it is.
std::vector<compressed_model> compress(trained_model& m, matopt::eigen_backend& cpu, const calibration& c, method how,
                                       const std::vector<double>& keep, const loss_of& loss, int bits = 32);

// A checkpoint of the compressed model: "name.left" and "name.right" in place of "name". In 8 or 4 bits, all hidden
// matrices are stored as quantized_rows.hpp says, and everything else stays as floats.
void save_compressed(trained_model& m, const compressed_model& c, const std::string& path, int bits = 32);

// Spectra of the hidden matrices.
struct matrix_report {
  std::string name;
  matopt::index_t rows, cols;
  double spectral_norm, stable_rank, effective_rank, least_row, greatest_row, coherence;
  std::vector<double> values;
};
std::vector<matrix_report> inspect(trained_model& m, matopt::eigen_backend& cpu);

}  // namespace small_gpt
