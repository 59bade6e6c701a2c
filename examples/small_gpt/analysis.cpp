#include "analysis.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "compression.hpp"
#include "device.hpp"
#include "files.hpp"
#include "text_format.hpp"

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
  const bool gpu = run.settings.device != "cpu" && cuda_device_maker();
  const loss_of loss = gpu ? on_gpu(*m, windows) : on_processor(*m, cpu, windows);
  const calibration inputs = calibration::of(*m, cpu, o.calibration);
  result["evaluated_on"] = gpu ? run.settings.device : "cpu";
  result["keep"] = o.keep, result["calibration"] = o.calibration;
  result["compressed"] = json::array();
  for (const double keep : o.keep) result["compressed"].push_back({{"keep", keep}});
  const stored_model dense = after_round_trip(*m, cpu, {}, {}, loss);
  result["dense"] = {{"loss", dense.loss}, {"bytes", dense.bytes}};
  for (const auto& [name, how] : compressors) {
    const auto all = compress(*m, cpu, inputs, how, o.keep, loss).front();
    for (std::size_t i = 0; i < all.size(); ++i) {
      json& entry = result["compressed"][i];
      entry[name] = all[i].stored.loss;
      entry["bytes"] = all[i].stored.bytes;
      entry["ridge"] = std::max(entry.value("ridge", 0.0), all[i].ridge);
    }
  }
  return result;
}

// compressed.csv: a line for the model as it is, and one for each way of compressing it.
void write_csv(const run_record& run, const json& found) {
  const double bits = run.bits_per_nat();
  std::string text = "method,keep,bytes,loss,bits_per_byte\n";
  const auto line = [&](const std::string& name, double keep, const json& bytes, double loss) {
    text += name + ',' + matopt::detail::text(keep) + ',' + bytes.dump() + ',' + fixed(loss, 6) + ',' +
            fixed(loss * bits, 6) + '\n';
  };
  line("dense", 1, found.at("dense").at("bytes"), found.at("dense").at("loss").get<double>());
  for (const auto& [name, how] : compressors)
    for (const json& e : found.at("compressed"))
      line(name, e.at("keep").get<double>(), e.at("bytes"), e.at(name).get<double>());
  write_file(run.folder + "/compressed.csv", text);
}

}  // namespace

json known_analysis(const run_record& run, const analysis_options& o) {
  const std::string path = run.folder + "/analysis.json";
  std::error_code none;
  if (!std::filesystem::exists(path, none)) return {};
  json known = json::parse(read_file(path), nullptr, false);
  if (!known.is_object() || known.value("step", -1) != run.settings.iterations) return {};
  if (!o.compress || (o.any_known && known.contains("compressed"))) return known;
  const bool same =
      known.value("keep", json()) == json(o.keep) && known.value("calibration", json()) == json(o.calibration);
  return same ? known : json();
}

json analysis_of(const run_record& run, matopt::eigen_backend& cpu, const analysis_options& o) {
  if (json known = known_analysis(run, o); !known.is_null()) return known;
  try {
    const json found = analyse(run, cpu, o);
    if (found.at("step") != run.settings.iterations) return {};
    if (o.compress) write_csv(run, found);
    write_file(run.folder + "/analysis.json", found.dump(1) + '\n');
    return found;
  } catch (const matopt::error& e) {
    std::fprintf(stderr, "\"%s\" is not analysed: %s\n", run.folder.c_str(), e.what());
    return {};
  }
}

}  // namespace small_gpt
