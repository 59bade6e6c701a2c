#include "analysis.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

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
                                  {"rate_shape", r.rate.shape},
                                  {"rate", r.rate.rate},
                                  {"singular_values", r.values}});
  const matopt::weight_rate rate = rate_of(*m);
  result["rate"] = {{"shape", rate.shape}, {"rate", rate.rate}, {"eps", 1.0}};
  if (!o.compress) return result;
  const int windows = run.settings.eval_windows;
  const bool gpu = run.settings.device != "cpu" && cuda_device_maker();
  const loss_of loss = gpu ? on_gpu(*m, windows) : on_processor(*m, cpu, windows);
  const calibration inputs = calibration::of(*m, cpu, o.calibration);
  result["evaluated_on"] = gpu ? run.settings.device : "cpu";
  result["keep"] = o.keep, result["bits"] = o.bits, result["entropy"] = o.entropy;
  result["calibration"] = o.calibration;
  const stored_model dense = after_round_trip(*m, cpu, {}, {}, loss);
  result["dense"] = {{"loss", dense.loss}, {"bytes", dense.bytes}};
  std::vector<storage> ways;
  for (const int bits : o.bits) ways.push_back({bits, o.entropy && bits <= 8});
  const auto record = [](json& entry, const char* name, const storage& way, const stored_model& stored) {
    entry[name] = stored.loss, entry["bytes"] = stored.uncoded_bytes;
    if (way.entropy) entry["coded_bytes"][name] = stored.bytes;
  };
  std::vector<json> entries(ways.size(), json::array());
  for (std::size_t w = 0; w < ways.size(); ++w) {
    for (const double keep : o.keep) entries[w].push_back({{"keep", keep}, {"bits", ways[w].bits}});
    if (ways[w].bits == 32 || std::find(o.keep.begin(), o.keep.end(), 1.0) != o.keep.end()) continue;
    json rounded{{"keep", 1.0}, {"bits", ways[w].bits}, {"ridge", 0.0}};
    const stored_model stored = after_round_trip(*m, cpu, {}, ways[w], loss);
    for (const auto& [name, how] : compressors) record(rounded, name, ways[w], stored);
    entries[w].push_back(std::move(rounded));
  }
  for (const auto& [name, how] : compressors) {
    const auto all = compress(*m, cpu, inputs, how, o.keep, loss, ways);
    for (std::size_t w = 0; w < ways.size(); ++w)
      for (std::size_t i = 0; i < all[w].size(); ++i) {
        json& entry = entries[w][i];
        record(entry, name, ways[w], all[w][i].stored);
        entry["ridge"] = std::max(entry.value("ridge", 0.0), all[w][i].ridge);
      }
  }
  result["compressed"] = json::array();
  for (json& of_bits : entries)
    for (json& entry : of_bits) result["compressed"].push_back(std::move(entry));
  return result;
}

// compressed.csv: a line for the model as it is, and one for each way of compressing it; "bytes" are those of the file.
void write_csv(const run_record& run, const json& found) {
  const double bits = run.bits_per_nat();
  std::string text = "method,keep,bytes,loss,bits_per_byte,bits,uncoded_bytes\n";
  const auto line = [&](const std::string& name, double keep, double bytes, double loss, int stored,
                        const json& plain) {
    text += name + ',' + matopt::detail::text(keep) + ',' + fixed(bytes, 0) + ',' + fixed(loss, 6) + ',' +
            fixed(loss * bits, 6) + ',' + std::to_string(stored) + ',' + plain.dump() + '\n';
  };
  const json& dense = found.at("dense");
  line("dense", 1, dense.at("bytes").get<double>(), dense.at("loss").get<double>(), 32, dense.at("bytes"));
  for (const auto& [name, how] : compressors)
    for (const json& e : found.at("compressed"))
      line(name, e.at("keep").get<double>(), bytes_of(e, name), e.at(name).get<double>(), bits_of(e), e.at("bytes"));
  write_file(run.folder + "/compressed.csv", text);
}

}  // namespace

void analysis_options::validate(const std::string& where) const {
  for (const double k : keep) matopt::rank_for(k, 1, 1);
  const std::string given = json(bits).dump();
  const std::set<int> different(bits.begin(), bits.end());
  if (bits.empty() || different.size() != bits.size())
    throw matopt::bad_value("bits" + where, given, "one number or more, each once, of 32, 16, 8, 4");
  for (const int b : bits)
    if (!storage::legal(b)) throw matopt::bad_value("bits" + where, given, storage::legal_bits);
  if (entropy && *different.begin() > 8)
    throw matopt::bad_value("bits" + where + ", with entropy,", given, "8 or 4 among them: whole numbers are coded");
}

int bits_of(const json& entry) { return entry.value("bits", 32); }

double bytes_of(const json& entry, const std::string& method) {
  const auto coded = entry.find("coded_bytes");
  return (coded != entry.end() ? coded->at(method) : entry.at("bytes")).get<double>();
}

double loss_in(const json& entry, const std::string& method) {
  if (!entry.is_object()) return std::nan("");
  const auto loss = entry.find(method);
  return loss != entry.end() && loss->is_number() ? loss->get<double>() : std::nan("");
}

double rate_in(const json& analysis, const char* key) {
  return analysis.is_object() && analysis.contains("rate") ? analysis.at("rate").at(key).get<double>() : std::nan("");
}

json entry_of(const json& analysis, double keep, int bits) {
  if (analysis.is_object())
    for (const json& e : analysis.value("compressed", json::array()))
      if (e.at("keep") == keep && bits_of(e) == bits) return e;
  return {};
}

namespace {

// Whether a file that anybody may have edited has what a report reads of it.
bool is_analysis(const json& a) {
  const auto number = [](const json& of, const char* key) {
    return of.is_object() && of.contains(key) && of.at(key).is_number();
  };
  const auto all = [](const json& list, auto fits) {
    return list.is_array() && std::all_of(list.begin(), list.end(), fits);
  };
  const auto matrix = [&](const json& m) {
    return number(m, "stable_rank") && number(m, "spectral_norm") && m.contains("singular_values") &&
           !m.at("singular_values").empty() &&
           all(m.at("singular_values"), [](const json& x) { return x.is_number(); });
  };
  const auto model = [&](const json& e) {
    return number(e, "keep") && number(e, "bytes") && e.value("bits", json(32)).is_number_integer() &&
           std::all_of(std::begin(compressors), std::end(compressors), [&](const auto& c) {
             return !e.contains("coded_bytes") || number(e.at("coded_bytes"), c.first);
           });
  };
  if (!a.is_object() || !a.contains("matrices") || a.at("matrices").empty() || !all(a.at("matrices"), matrix))
    return false;
  if (a.contains("rate") && !(number(a.at("rate"), "shape") && number(a.at("rate"), "rate"))) return false;
  if (a.contains("dense") && !(number(a.at("dense"), "bytes") && a.at("dense").contains("loss"))) return false;
  return !a.contains("compressed") || (a.contains("dense") && a.contains("keep") &&
                                       a.value("entropy", json(false)).is_boolean() && all(a.at("compressed"), model));
}

}  // namespace

json known_analysis(const run_record& run, const analysis_options& o) {
  const std::string path = run.folder + "/analysis.json";
  std::error_code none;
  if (!std::filesystem::exists(path, none)) return {};
  json known;
  try {
    known = json::parse(read_file(path), nullptr, false);
  } catch (const matopt::error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return {};
  }
  if (!is_analysis(known)) {
    std::fprintf(stderr, "\"%s\" is not what this program writes, and is made anew\n", path.c_str());
    return {};
  }
  if (known.value("step", json()) != run.settings.iterations) return {};
  if (!o.compress || (o.any_known && known.contains("compressed"))) return known;
  const bool same = known.value("keep", json()) == json(o.keep) &&
                    known.value("calibration", json()) == json(o.calibration) &&
                    known.value("bits", json{32}) == json(o.bits) && known.value("entropy", false) == o.entropy;
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
