// The commands `export` and `logits`.
#include <cmath>
#include <cstdio>

#include "commands.hpp"
#include "export.hpp"

namespace small_gpt {

exit_status export_model(const options& o, matopt::eigen_backend& cpu) {
  const bool huggingface = o.format == "huggingface";
  if (!huggingface && o.format != "safetensors")
    throw matopt::bad_value("--format", '"' + o.format + '"', "one of safetensors, huggingface");
  if (o.out.empty()) throw matopt::bad_value("--out", "\"\"", huggingface ? "the name of a folder" : "that of a file");
  if (!huggingface) require_output("--out", o.out, o.checkpoint);
  const auto m = load_model(matopt::tensor_file::load(o.checkpoint), text_source::none(), cpu.pool());
  huggingface ? export_huggingface(*m, o.out, o.force) : export_dense(*m, o.out);
  std::printf("exported: %s\n", o.out.c_str());
  return exit_status::done;
}

exit_status logits(const options& o, matopt::eigen_backend& cpu) {
  require_output("--out", o.out, o.checkpoint);
  const auto m = load_model(matopt::tensor_file::load(o.checkpoint), text_source::none(), cpu.pool());
  const std::vector<std::int32_t> tokens = o.tokens.empty() ? m->words.encode(o.text) : o.tokens;
  const index_t context = m->model.config().context;
  if (tokens.empty() || static_cast<index_t>(tokens.size()) > context)
    throw matopt::bad_value(o.tokens.empty() ? "number of tokens of --text" : "number of --tokens",
                            std::to_string(tokens.size()), "1 to context (" + std::to_string(context) + ")");
  const auto rows = static_cast<index_t>(tokens.size()), columns = index_t{m->model.config().vocabulary};
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  m->model.all_logits(tokens, values);
  for (const float z : values)
    if (!std::isfinite(z)) {
      std::fprintf(stderr, "small_gpt: a logit is not finite: this is a checkpoint of a training that diverged\n");
      return exit_status::diverged;
    }
  matopt::tensor_file file;
  store_tensor(file, "logits", values.data(), rows, columns);
  std::string numbers;
  for (const std::int32_t t : tokens) numbers += (numbers.empty() ? "" : " ") + std::to_string(t);
  file.metadata["tokens"] = numbers;
  file.save(o.out);
  std::printf("logits after each of %td tokens: %s\n", rows, o.out.c_str());
  return exit_status::done;
}

}  // namespace small_gpt
