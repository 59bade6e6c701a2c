#include "export.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "files.hpp"

namespace small_gpt {

namespace {

// One line of GPT-2's correspondence: what "model.layerN.OURS" is called in "transformer.h.N.", and whether its matrix is
// that of a Conv1D, which has fan-in as rows.
struct counterpart {
  const char* ours;
  const char* theirs;
  bool conv1d;
};
constexpr counterpart of_layer[] = {
    {"attention_gain", "ln_1", false}, {"qkv", "attn.c_attn", true}, {"attention_out", "attn.c_proj", true},
    {"mlp_gain", "ln_2", false},       {"mlp_in", "mlp.c_fc", true}, {"mlp_out", "mlp.c_proj", true},
};

void store(matopt::tensor_file& file, const std::string& name, std::vector<index_t> shape,
           const std::vector<float>& values) {
  auto& t = file.tensors[name];
  t.type = matopt::element_type::f32, t.shape = std::move(shape);
  t.data.resize(values.size() * sizeof(float));
  std::memcpy(t.data.data(), values.data(), t.data.size());
}

std::vector<float> values_of(const parameter<float>& p) { return {p.value, p.value + p.rows * p.cols}; }

std::vector<float> transposed(const parameter<float>& p) {
  std::vector<float> out(static_cast<std::size_t>(p.rows * p.cols));
  as_matrix(out.data(), p.cols, p.rows) = as_matrix(p.value, p.rows, p.cols).transpose();
  return out;
}

std::vector<float> zeros(index_t size) { return std::vector<float>(static_cast<std::size_t>(size)); }

// The tensors of GPT2LMHeadModel. Its head is tied to the embedding, and so are ours, so that no file holds it. Biases,
// which this model has none of, are zero.
matopt::tensor_file gpt2_tensors(trained_model& m) {
  matopt::tensor_file file;
  file.metadata["format"] = "pt";  // transformers asks for it
  for (const auto& p : m.model.parameters()) {
    const auto gain = [&](const std::string& name) {
      store(file, name + ".weight", {p.cols}, values_of(p)), store(file, name + ".bias", {p.cols}, zeros(p.cols));
    };
    if (p.name == "embedding") {
      store(file, "transformer.wte.weight", {p.rows, p.cols}, values_of(p));
    } else if (p.name == "positions") {
      store(file, "transformer.wpe.weight", {p.rows, p.cols}, values_of(p));
    } else if (p.name == "final_gain") {
      gain("transformer.ln_f");
    } else {
      const auto dot = p.name.find('.');
      const std::string prefix = "transformer.h." + p.name.substr(5, dot - 5) + '.';  // after "layer"
      for (const counterpart& c : of_layer) {
        if (p.name.substr(dot + 1) != c.ours) continue;
        if (!c.conv1d) {
          gain(prefix + c.theirs);
        } else {
          store(file, prefix + c.theirs + ".weight", {p.cols, p.rows}, transposed(p));
          store(file, prefix + c.theirs + ".bias", {p.rows}, zeros(p.rows));
        }
      }
    }
  }
  return file;
}

nlohmann::ordered_json gpt2_config(const gpt_config& c) {
  return {
      {"architectures", {"GPT2LMHeadModel"}},
      {"model_type", "gpt2"},
      {"torch_dtype", "float32"},
      {"vocab_size", c.vocabulary},
      {"n_positions", c.context},
      {"n_ctx", c.context},
      {"n_embd", c.width},
      {"n_layer", c.layers},
      {"n_head", c.heads},
      {"n_inner", 4 * c.width},
      {"activation_function", "gelu"},  // by the error function, as in layers.hpp; GPT-2's own, gelu_new, is by tanh
      {"layer_norm_epsilon", 1e-5},
      {"resid_pdrop", 0.0},
      {"embd_pdrop", 0.0},
      {"attn_pdrop", 0.0},
      {"initializer_range", 0.02},
      {"scale_attn_weights", true},
      {"tie_word_embeddings", true},
      {"use_cache", true},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr}};
}

// The bytes of a token as GPT-2's tokenizers write them: a character for each byte, which is the byte itself where it
// prints in Latin-1, and one of those from U+0100 on, in order, for the others.
std::string in_printing_characters(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    const auto prints = [](unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
    unsigned code = static_cast<unsigned char>(byte);
    if (!prints(code)) {
      unsigned before = 0;
      for (unsigned b = 0; b < code; ++b) before += !prints(b);
      code = 256 + before;
    }
    if (code < 128) {
      out += static_cast<char>(code);
    } else {
      out += static_cast<char>(0xc0U | code >> 6U);
      out += static_cast<char>(0x80U | (code & 63U));
    }
  }
  return out;
}

// The tokenizer in the format of the library `tokenizers`. Bytes alone are byte pairs without any merge.
nlohmann::ordered_json tokenizer_of(const vocabulary& words) {
  const nlohmann::ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  nlohmann::ordered_json symbols = nlohmann::ordered_json::object(), merges = nlohmann::ordered_json::array();
  std::vector<std::string> names;
  for (const auto& s : words.symbols()) names.push_back(in_printing_characters(s));
  for (std::size_t i = 0; i < names.size(); ++i) symbols[names[i]] = i;
  for (const auto& [a, b] : words.merges())
    merges.push_back(names[static_cast<std::size_t>(a)] + ' ' + names[static_cast<std::size_t>(b)]);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", nlohmann::ordered_json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", symbols},
            {"merges", merges}}}};
}

}  // namespace

void export_dense(trained_model& m, const std::string& path) {
  matopt::tensor_file file;
  store_model(m, file);
  file.metadata["format"] = "pt";
  file.save(path);
}

void export_huggingface(trained_model& m, const std::string& folder, bool replace) {
  if (m.settings.architecture != "nanogpt")
    throw matopt::bad_value("--format", "huggingface of a model of --arch " + m.settings.architecture,
                            "huggingface of --arch nanogpt, which is a GPT-2; or safetensors");
  const bool tokenizer = m.words.kind() == vocabulary_kind::pairs || m.words.kind() == vocabulary_kind::byte;
  const std::string config = folder + "/config.json", weights = folder + "/model.safetensors",
                    tokens = folder + "/tokenizer.json", tokens_config = folder + "/tokenizer_config.json";
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw matopt::bad_file("cannot make the folder \"" + folder + "\": " + failure.message());
  for (const std::string& path : {config, weights, tokens, tokens_config}) {
    require_writable_file("--out", path);
    if (!replace && std::filesystem::exists(path))
      throw matopt::bad_file("\"" + folder + "\" holds a model already: \"" + path + "\"; --force replaces it");
  }
  // The configuration goes first and comes last, so that a folder that was left half written does not load.
  for (const std::string& path : {config, tokens, tokens_config}) std::filesystem::remove(path);
  gpt2_tensors(m).save(weights);
  if (tokenizer) {
    write_file(tokens, tokenizer_of(m.words).dump() + '\n');
    write_file(tokens_config, nlohmann::ordered_json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                                     {"model_max_length", m.settings.context},
                                                     {"clean_up_tokenization_spaces", false}}
                                      .dump(2) +
                                  '\n');
  }
  write_file(config, gpt2_config(m.model.config()).dump(2) + '\n');
}

}  // namespace small_gpt
