// A model with its vocabulary and its text, and how it goes into a checkpoint and comes back.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "data.hpp"
#include "model.hpp"
#include "run_settings.hpp"

namespace small_gpt {

extern template class gpt<float>;  // compiled once, in model.cpp

struct trained_model {
  run_settings settings;
  vocabulary words;
  gpt<float> model;
  std::optional<dataset> data;
  std::string learned_from;  // digest of the text that it learned from; empty if the checkpoint does not tell

  // Throws if this machine has too little memory for a model of that shape.
  trained_model(const run_settings& s, vocabulary v, const matopt::thread_pool& pool);
  const dataset& text() const;  // error if there is none
  // Mean cross entropy on the first `windows` windows of the validation text (0: all), in nats per token; NaN if
  // `stopped` said so.
  double validation_loss(matopt::thread_pool& pool, int windows, const std::function<bool()>& stopped = {});
  bool finite();  // all weights
};

// Of a model with so many tokens; as it is set, checked by whoever uses it.
gpt_config shape_of(const run_settings& s, int vocabulary);
// Throws if the vocabulary is to be that of a folder of tokens: for a text.
void refuse_shards(const run_settings& s);

// A text, or a folder of tokens, as it lies on disk.
struct source_of_tokens {
  std::string text;
  std::optional<token_shards> shards;
  std::string digest;

  explicit source_of_tokens(const std::string& path, const std::string& advice = "");
  // The vocabulary that a fresh model of these settings gets.
  vocabulary fresh_vocabulary(const run_settings& s) const;
  dataset data(const vocabulary& v, const run_settings& s);
  // Of shards: puts their vocabulary into the settings. Throws if the user gave these another one.
  void settle_vocabulary(run_settings& s, const vocabulary& fresh, const std::set<std::string>& given) const;
};

// Which text a model comes with.
struct text_source {
  enum class kind { none, any, same };  // same: that which it learned from, or an error
  kind what = kind::none;
  std::string path;  // instead of the path in the checkpoint, if not empty

  static text_source none() { return {}; }
  // For a measurement: a text that the user names may be any; the one that the checkpoint names has to be the same.
  static text_source named(const std::string& path) { return {path.empty() ? kind::same : kind::any, path}; }
  static text_source same(const std::string& path) { return {kind::same, path}; }
};

// The model of a checkpoint; factored tensors ("name.left", "name.right") are multiplied out, those that were entropy-coded
// (coded_tensors.hpp) are decoded, and those in 16, 8 or 4 bits (quantized_rows.hpp) become floats.
std::unique_ptr<trained_model> load_model(const matopt::tensor_file& file, const text_source& text,
                                          const matopt::thread_pool& pool);
// Weights, settings, vocabulary, the digest of the text, and the version of all that.
void store_model(trained_model& m, matopt::tensor_file& file);

// Throws if a command that reads `checkpoint` must not put its file at `path`. Such a file may take the place of an
// earlier one of its kind, but not of a training, of which it holds a part, nor of anything else that somebody has there.
void require_output(const std::string& option, const std::string& path, const std::string& checkpoint);

// The entry `key` of a checkpoint's metadata; throws if it has none.
std::string metadata(const matopt::tensor_file& file, const std::string& key);

// `values`, rows x cols, as the tensor `name` of a file.
void store_tensor(matopt::tensor_file& file, const std::string& name, const float* values, matopt::index_t rows,
                  matopt::index_t cols);
// The same in bfloat16.
void store_bfloat16(matopt::tensor_file& file, const std::string& name, const float* values, matopt::index_t rows,
                    matopt::index_t cols);

}  // namespace small_gpt
