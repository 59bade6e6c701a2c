#include "analysis.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "compression.hpp"
#include "files.hpp"

namespace small_gpt {

using nlohmann::json;

namespace {

constexpr std::pair<const char*, method> compressors[] = {
    {"plain", method::svd}, {"asvd", method::asvd}, {"whitened", method::whitened}};

json analyse(const run_record& run, matopt::eigen_backend& cpu, const analysis_options& o) {
  const std::string checkpoint = run.folder + "/checkpoint.safetensors";
  const auto file = matopt::tensor_file::load(checkpoint);
  const auto m = load_model(file, o.compress ? text_source::same(o.data) : text_source::none(), cpu.pool());
  const json position = json::parse(metadata(file, "small_gpt.position"), nullptr, false);
  json result{{"step", position.value("step", -1)}, {"matrices", json::array()}};
  for (const auto& r : inspect(*m, cpu))
    result["matrices"].push_back({{"name", r.name},
                                  {"shape", {r.rows, r.cols}},
                                  {"spectral_norm", r.spectral_norm},
                                  {"stable_rank", r.stable_rank},
                                  {"effective_rank", r.effective_rank},
                                  {"row_norms", {r.least_row, r.greatest_row}},
                                  {"coherence", r.coherence},
                                  {"singular_values", r.values}});
  if (!o.compress) return result;
  const int windows = run.settings.eval_windows;
  const calibration inputs = calibration::of(*m, o.calibration);
  result["keep"] = o.keep, result["calibration"] = o.calibration;
  result["compressed"] = json::array();
  for (const double keep : o.keep) result["compressed"].push_back({{"keep", keep}});
  for (const auto& [name, how] : compressors) {
    const auto all = compress(*m, cpu, inputs, how, o.keep, windows);
    for (std::size_t i = 0; i < all.size(); ++i) {
      json& entry = result["compressed"][i];
      entry[name] = all[i].loss;
      entry["bytes"] = all[i].bytes;
      entry["ridge"] = std::max(entry.value("ridge", 0.0), all[i].ridge);
      result["dense"] = {{"loss", all[i].dense_loss}, {"bytes", all[i].dense_bytes}};
    }
  }
  return result;
}

}  // namespace

json analysis_of(const run_record& run, matopt::eigen_backend& cpu, const analysis_options& o) {
  const std::string path = run.folder + "/analysis.json";
  std::error_code none;
  if (std::filesystem::exists(path, none)) {
    const json known = json::parse(read_file(path), nullptr, false);
    const bool enough = known.is_object() && known.value("step", -1) == run.settings.iterations &&
                        (!o.compress || (known.value("keep", json()) == json(o.keep) &&
                                         known.value("calibration", 0) == o.calibration));
    if (enough) return known;
  }
  try {
    const json found = analyse(run, cpu, o);
    if (found.at("step") != run.settings.iterations) return {};
    write_file(path, found.dump(1) + '\n');
    return found;
  } catch (const matopt::error& e) {
    std::fprintf(stderr, "report: \"%s\" is not analysed: %s\n", run.folder.c_str(), e.what());
    return {};
  }
}

}  // namespace small_gpt
