#include "trained_model.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <matopt/core/bfloat16.hpp>
#include <sstream>

#include "coded_tensors.hpp"
#include "quantized_rows.hpp"

namespace small_gpt {

using matopt::bad_file;
using nlohmann::json;

namespace {

constexpr const char* format_version = "1";

// Throws if the model is none, or if this machine has too little memory for it.
gpt_config checked_shape(const run_settings& s, int vocabulary) {
  const gpt_config shape = shape_of(s, vocabulary);
  shape.validate();
  const double batch = 2.0 * sizeof(std::int32_t) * s.batch * s.context;
  const double needed = shape.least_bytes(std::min(s.shards, s.batch), sizeof(float)) + batch;
  const double present = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  if (present > 0 && needed > present) {
    const auto gigabytes = [](double bytes) {
      char text[32];
      std::snprintf(text, sizeof text, "%.3g GB", bytes * 1e-9);
      return std::string(text);
    };
    std::ostringstream sizes;
    sizes << "the memory for --layers " << s.layers << ", --width " << s.width << ", --heads " << s.heads
          << ", --context " << s.context << ", --batch " << s.batch << ", --shards " << s.shards;
    throw matopt::bad_value(sizes.str(), gigabytes(needed) + " or more",
                            "at most what this machine has, " + gigabytes(present));
  }
  return shape;
}

void check_version(const matopt::tensor_file& file) {
  for (const char* key : {"small_gpt.format_version", "format_version"})
    if (const auto at = file.metadata.find(key); at != file.metadata.end() && at->second != format_version)
      throw bad_file(std::string("the checkpoint's ") + key + " is " + at->second + "; this program reads " +
                     format_version);
}

// Fills the model's weights from the file.
void load_weights(gpt<float>& model, const matopt::tensor_file& file) {
  std::string missing;
  for (const auto& p : model.parameters()) {
    std::map<std::string, std::vector<float>> converted;  // from bfloat16, by suffix
    const auto tensor = [&](const std::string& suffix, index_t rows, index_t cols) -> const float* {
      const auto at = file.tensors.find("model." + p.name + suffix);
      if (at == file.tensors.end()) return nullptr;
      const auto& t = at->second;
      if (t.shape.size() != 2 || (rows >= 0 && t.shape[0] != rows) || (cols >= 0 && t.shape[1] != cols)) return nullptr;
      if (t.type == matopt::element_type::f32) return reinterpret_cast<const float*>(t.data.data());
      if (t.type != matopt::element_type::bf16) return nullptr;
      std::vector<float>& floats = converted[suffix];
      floats.resize(t.data.size() / sizeof(matopt::bfloat16));
      for (std::size_t i = 0; i < floats.size(); ++i) {
        matopt::bfloat16 x;
        std::memcpy(&x, t.data.data() + i * sizeof x, sizeof x);
        floats[i] = static_cast<float>(x);
      }
      return floats.data();
    };
    const float* left = tensor(".left", p.rows, -1);
    const std::string name = "model." + p.name;
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    if (const auto scales = file.tensors.find(name + ".right.scale");
        scales != file.tensors.end() && scales->second.shape.size() == 2 &&
        scales->second.shape[0] <= std::min(p.rows, p.cols)) {
      const index_t k = scales->second.shape[0];
      matrix l(p.rows, k), r(k, p.cols);
      if (load_quantized(file, name + ".left", p.rows, k, l.data()) &&
          load_quantized(file, name + ".right", k, p.cols, r.data())) {
        Eigen::Map<matrix>(p.value, p.rows, p.cols).noalias() = l * r;
        continue;
      }
    }
    if (load_quantized(file, name, p.rows, p.cols, p.value)) continue;
    if (const float* w = tensor("", p.rows, p.cols)) {
      std::copy_n(w, p.rows * p.cols, p.value);
    } else if (const index_t k = left ? file.tensors.at("model." + p.name + ".left").shape[1] : -1;
               left && tensor(".right", k, p.cols)) {
      Eigen::Map<matrix>(p.value, p.rows, p.cols).noalias() =
          Eigen::Map<const matrix>(left, p.rows, k) * Eigen::Map<const matrix>(tensor(".right", k, p.cols), k, p.cols);
    } else {
      missing += "\n  " + p.name + ": here F32 " + std::to_string(p.rows) + "x" + std::to_string(p.cols) +
                 ", file has none of that shape";
    }
  }
  if (!missing.empty()) throw bad_file("the checkpoint holds another model:" + missing);
}

void load_text(trained_model& m, const text_source& source) {
  run_settings& s = m.settings;
  if (!source.path.empty()) s.data = source.path;
  source_of_tokens found(s.data, "; if the text has moved, name it with --data");
  if (source.what == text_source::kind::same) {
    const std::string& here = found.digest;
    if (!m.learned_from.empty() && here != m.learned_from)
      throw bad_file("\"" + s.data + "\" is not the text that the model learned from: that was " + m.learned_from +
                     ", this is " + here + "; name the text with --data");
    if (!m.learned_from.empty() && m.words.kind() == vocabulary_kind::character &&
        vocabulary::characters(found.text).symbols() != m.words.symbols())
      throw bad_file("small_gpt.vocabulary in the checkpoint is not that of its text, \"" + s.data + '"');
  }
  if (found.shards && !found.shards->symbols.empty() && m.words.has_text()) {
    const auto &theirs = found.shards->symbols, &ours = m.words.symbols();
    const auto first = std::mismatch(theirs.begin(), theirs.end(), ours.begin(), ours.end()).first;
    if (theirs != ours)
      throw bad_file("the tokens in \"" + s.data +
                     "\" are of another vocabulary than the model's: they differ from token " +
                     std::to_string(first - theirs.begin()) + " on");
  }
  m.data.emplace(found.data(m.words, s));
}

// A symbol in the metadata of a checkpoint: in hexadecimal, and one of no bytes at all as "-".
std::string text_of_symbol(const std::string& symbol) { return symbol.empty() ? "-" : hex(symbol); }
std::string symbol_from(const std::string& text) { return text == "-" ? "" : unhex(text); }

}  // namespace

gpt_config shape_of(const run_settings& s, int vocabulary) {
  return {s.architecture == "nanogpt" ? architecture::nanogpt : architecture::modern,
          s.layers,
          s.heads,
          s.width,
          s.context,
          vocabulary};
}

void refuse_shards(const run_settings& s) {
  if (s.vocabulary == "shards")
    throw matopt::bad_value("--vocabulary", "shards", "of a folder of tokens; \"" + s.data + "\" is a file");
}

source_of_tokens::source_of_tokens(const std::string& path, const std::string& advice) {
  if (token_shards::is_folder(path)) {
    shards.emplace(path);
    digest = shards->digest;
  } else {
    text = read_file(path, advice);
    digest = digest_of(text);
  }
}

vocabulary source_of_tokens::fresh_vocabulary(const run_settings& s) const {
  if (shards) {
    const std::string path = s.data + "/merges.txt";
    const std::string merges = std::filesystem::exists(path) ? read_file(path) : std::string();
    if (merges.find_first_of("0123456789") == 0) {  // else it is another program's, in letters
      byte_pairs learned = pairs_from(merges, '"' + path + '"');
      if (learned.symbols() == shards->symbols) return vocabulary::pairs(std::move(learned));
    }
    return vocabulary::of(*shards, shards->symbols.empty() ? s.vocabulary_size : 0);
  }
  if (text.empty()) throw matopt::error("\"" + s.data + "\" is empty; a text to learn from is needed");
  refuse_shards(s);
  if (s.vocabulary == "pairs") return vocabulary::pairs(byte_pairs::learned(text, s.vocabulary_size));
  return s.vocabulary == "byte" ? vocabulary::bytes() : vocabulary::characters(text);
}

void source_of_tokens::settle_vocabulary(run_settings& s, const vocabulary& fresh,
                                         const std::set<std::string>& given) const {
  if (!shards) return;
  const std::string kind = fresh.kind() == vocabulary_kind::pairs ? "pairs" : "shards";
  const std::string legal = "\", which \"" + s.data + "\" has, or nothing: tokens come with their vocabulary";
  if (given.contains("vocabulary") && s.vocabulary != kind)
    throw matopt::bad_value("--vocabulary", '"' + s.vocabulary + '"', '"' + kind + legal);
  if (given.contains("vocabulary_size") && s.vocabulary_size != fresh.size())
    throw matopt::bad_value("--vocabulary-size", std::to_string(s.vocabulary_size),
                            '"' + std::to_string(fresh.size()) + legal);
  s.vocabulary = kind, s.vocabulary_size = fresh.size();
}

dataset source_of_tokens::data(const vocabulary& v, const run_settings& s) {
  return shards ? dataset(std::move(*shards), v, s.context) : dataset(text, v, s.context, s.train_fraction);
}

trained_model::trained_model(const run_settings& s, vocabulary v, const matopt::thread_pool& pool)
    : settings(s), words(std::move(v)), model(checked_shape(s, words.size()), pool, s.seed, s.shards) {}

const dataset& trained_model::text() const {
  if (!data) throw matopt::error("no text to measure on: give --data");
  return *data;
}

double trained_model::validation_loss(matopt::thread_pool& pool, int windows, const std::function<bool()>& stopped) {
  return small_gpt::validation_loss(
      [&](auto tokens, auto targets, index_t count) { return model.loss(pool, tokens, targets, count); }, text(),
      windows, 64, stopped);
}

bool trained_model::finite() {
  return std::all_of(model.weights().begin(), model.weights().end(), [](float x) { return std::isfinite(x); });
}

void require_output(const std::string& option, const std::string& path, const std::string& checkpoint) {
  require_writable_file(option, path);
  const auto refuse = [&](const char* legal) { throw matopt::bad_value(option, '"' + path + '"', legal); };
  std::error_code absent;
  if (std::filesystem::equivalent(path, checkpoint, absent))
    refuse("another file than the checkpoint, which it would replace");
  if (std::filesystem::file_size(path, absent) == 0 || absent) return;
  matopt::tensor_file there;
  try {
    there = matopt::tensor_file::load(path);
  } catch (const bad_file&) {
    refuse("a new file, or one that such a command wrote, and this is another one");
  }
  if (there.metadata.contains("small_gpt.position"))
    refuse("a new file, or one that such a command wrote, and this is the checkpoint of a training");
}

std::string metadata(const matopt::tensor_file& file, const std::string& key) {
  const auto at = file.metadata.find(key);
  if (at == file.metadata.end()) throw bad_file("the file is no checkpoint of small_gpt: it has no \"" + key + '"');
  return at->second;
}

void store_tensor(matopt::tensor_file& file, const std::string& name, const float* values, matopt::index_t rows,
                  matopt::index_t cols) {
  auto& t = file.tensors[name];
  t.type = matopt::element_type::f32, t.shape = {rows, cols};
  t.data.resize(static_cast<std::size_t>(rows * cols) * sizeof(float));
  if (!t.data.empty()) std::memcpy(t.data.data(), values, t.data.size());
}

void store_bfloat16(matopt::tensor_file& file, const std::string& name, const float* values, matopt::index_t rows,
                    matopt::index_t cols) {
  auto& t = file.tensors[name];
  t.type = matopt::element_type::bf16, t.shape = {rows, cols};
  t.data.resize(static_cast<std::size_t>(rows * cols) * sizeof(matopt::bfloat16));
  for (index_t i = 0; i < rows * cols; ++i) {
    const matopt::bfloat16 x(values[i]);
    std::memcpy(t.data.data() + static_cast<std::size_t>(i) * sizeof x, &x, sizeof x);
  }
}

void store_model(trained_model& m, matopt::tensor_file& file) {
  for (const auto& p : m.model.parameters()) store_tensor(file, "model." + p.name, p.value, p.rows, p.cols);
  file.metadata["small_gpt.format_version"] = format_version;
  file.metadata["small_gpt.settings"] = to_checked_json(m.settings).dump();
  std::string symbols;
  for (const auto& s : m.words.symbols()) symbols += text_of_symbol(s) + ' ';
  file.metadata["small_gpt.vocabulary"] = symbols;
  if (m.words.kind() == vocabulary_kind::pairs) file.metadata["small_gpt.merges"] = text_of(m.words.merges());
  if (!m.learned_from.empty()) file.metadata["small_gpt.text"] = m.learned_from;
}

std::unique_ptr<trained_model> load_model(const matopt::tensor_file& file, const text_source& text,
                                          const matopt::thread_pool& pool) {
  if (has_coded(file)) {
    matopt::tensor_file plain = file;
    entropy_decode(plain);
    return load_model(plain, text, pool);
  }
  check_version(file);
  const run_settings s = from_checked_json(json::parse(metadata(file, "small_gpt.settings"), nullptr, false));
  validate(s);
  std::vector<std::string> symbols;
  std::istringstream list(metadata(file, "small_gpt.vocabulary"));
  for (std::string h; list >> h;) symbols.push_back(symbol_from(h));
  const auto words = [&] {
    if (const auto merges = file.metadata.find("small_gpt.merges"); merges != file.metadata.end()) {
      vocabulary v = vocabulary::pairs(pairs_from(merges->second, "small_gpt.merges in the checkpoint"));
      if (v.symbols() != symbols) throw bad_file("small_gpt.vocabulary and small_gpt.merges in the checkpoint differ");
      return v;
    }
    if (s.vocabulary == "shards") return vocabulary(std::move(symbols), vocabulary_kind::shards, false);
    return vocabulary(std::move(symbols), s.vocabulary == "byte" ? vocabulary_kind::byte : vocabulary_kind::character);
  };
  auto m = std::make_unique<trained_model>(s, words(), pool);
  if (const auto at = file.metadata.find("small_gpt.text"); at != file.metadata.end()) m->learned_from = at->second;
  load_weights(m->model, file);
  if (text.what != text_source::kind::none) load_text(*m, text);
  return m;
}

}  // namespace small_gpt
