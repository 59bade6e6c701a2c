#include "compression.hpp"

#include <algorithm>
#include <filesystem>
#include <matopt/metrics/rows.hpp>
#include <matopt/metrics/spectrum.hpp>
#include <memory>
#include <optional>
#include <span>

#include "coded_tensors.hpp"
#include "device.hpp"
#include "quantized_rows.hpp"
#include "temporary_file.hpp"

namespace small_gpt {

using matopt::index_t;

method method_named(const std::string& name) {
  if (name == "svd") return method::svd;
  if (name == "asvd") return method::asvd;
  if (name == "whitened") return method::whitened;
  throw matopt::bad_value("--method", '"' + name + '"', "one of svd, asvd, whitened");
}

void calibration::check(int sequences) {
  if (sequences < 1 || sequences > 1000000)
    throw matopt::bad_value("--calibration", std::to_string(sequences), "1 to 1000000");
}

calibration calibration::of(trained_model& m, matopt::eigen_backend& cpu, int sequences) {
  check(sequences);
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int context = m.settings.context, per_batch = 16;
  const auto parameters = m.model.parameters();
  std::map<std::size_t, matrix> inputs;  // of one batch
  struct piece {                         // of a sum of products: rows of its lower half
    std::size_t index;
    index_t first, rows;
  };
  std::vector<piece> pieces;
  calibration c;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].kind != tensor_role::hidden) continue;
    const index_t n = parameters[i].cols;
    inputs[i].resize(per_batch * context, n);
    c.layers[i] = {matopt::dense<double>(n, n), std::vector<double>(static_cast<std::size_t>(n), 0.0)};
    for (index_t first = 0; first < n; first += 64) pieces.push_back({i, first, std::min<index_t>(64, n - first)});
  }
  for (int first = 0; first < sequences; first += per_batch) {
    const int count = std::min(per_batch, sequences - first);
    const index_t rows = index_t{count} * context;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows)), targets(tokens.size());
    m.text().batch(m.settings.seed ^ 0x5eedULL, static_cast<std::uint64_t>(first), tokens, targets);
    m.model.observe_inputs(
        cpu.pool(), tokens, count, [&](std::size_t i, const float* x, index_t row, index_t count_x, index_t n) {
          inputs.at(i).middleRows(row, count_x) =
              Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(x, count_x, n)
                  .cast<double>();
        });
    cpu.pool().parallel_for(static_cast<index_t>(pieces.size()), [&](index_t task) {
      const piece& p = pieces[static_cast<std::size_t>(task)];
      layer& l = c.layers.at(p.index);
      const auto x = inputs.at(p.index).topRows(rows);
      const auto own = x.middleCols(p.first, p.rows);
      Eigen::Map<matrix>(l.gram.view().data, x.cols(), x.cols())
          .block(p.first, 0, p.rows, p.first + p.rows)
          .noalias() += own.transpose() * x.leftCols(p.first + p.rows);
      for (index_t j = 0; j < p.rows; ++j)
        l.magnitude[static_cast<std::size_t>(p.first + j)] += own.col(j).cwiseAbs().sum();
    });
    c.tokens += rows;
  }
  for (auto& [index, l] : c.layers) {
    for (index_t i = 0; i < l.gram.rows(); ++i)
      for (index_t j = i + 1; j < l.gram.cols(); ++j) l.gram(i, j) = l.gram(j, i);
    for (double& a : l.magnitude) a /= static_cast<double>(c.tokens);
  }
  return c;
}

stored_model after_round_trip(trained_model& m, matopt::eigen_backend& cpu, const compressed_model& c,
                              const storage& way, const loss_of& loss) {
  stored_model found;
  const temporary_file file;
  save_compressed(m, c, file.path(), {way.bits, false});
  found.bytes = found.uncoded_bytes = std::filesystem::file_size(file.path());
  if (way.entropy) {
    save_compressed(m, c, file.path(), way);
    found.bytes = std::filesystem::file_size(file.path());
  }
  const auto again = load_model(matopt::tensor_file::load(file.path()), text_source::none(), cpu.pool());
  found.loss = loss(*again);
  return found;
}

loss_of on_processor(trained_model& m, matopt::eigen_backend& cpu, int windows) {
  return [&m, &cpu, windows](trained_model& x) {
    return validation_loss(
        [&](auto tokens, auto targets, index_t count) { return x.model.loss(cpu.pool(), tokens, targets, count); },
        m.text(), windows);
  };
}

loss_of on_gpu(trained_model& m, int windows) {
  struct place {
    std::vector<float> weights;
    std::unique_ptr<device> gpu;
  };
  const auto there = std::make_shared<place>();
  there->weights.assign(m.model.weights().begin(), m.model.weights().end());
  there->gpu = cuda_device_maker()(m.settings, m.model.config(), there->weights);
  return [&m, windows, there](trained_model& x) {
    std::copy(x.model.weights().begin(), x.model.weights().end(), there->weights.begin());
    there->gpu->upload();
    return validation_loss(
        [&](auto tokens, auto targets, index_t count) { return there->gpu->loss(tokens, targets, count); }, m.text(),
        windows);
  };
}

std::vector<std::vector<compressed_model>> compress(trained_model& m, matopt::eigen_backend& cpu, const calibration& c,
                                                    method how, const std::vector<double>& keep, const loss_of& loss,
                                                    const std::vector<storage>& ways) {
  const auto parameters = m.model.parameters();
  std::vector<std::size_t> hidden;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].kind == tensor_role::hidden) hidden.push_back(i);

  // One decomposition per matrix serves every ratio; the matrices go side by side, each on a single thread.
  std::vector<std::optional<matopt::truncation>> decomposed(hidden.size());
  cpu.pool().parallel_for(static_cast<index_t>(hidden.size()), [&](index_t task) {
    matopt::eigen_backend alone(1);
    const std::size_t i = hidden[static_cast<std::size_t>(task)];
    const auto& p = parameters[i];
    const auto w = matopt::row_major(p.value, p.rows, p.cols);
    const auto& inputs = c.layers.at(i);
    decomposed[static_cast<std::size_t>(task)] = how == method::svd ? matopt::truncation::plain(alone, w)
                                                 : how == method::asvd
                                                     ? matopt::truncation::asvd(alone, w, inputs.magnitude)
                                                     : matopt::truncation::whitened(alone, w, inputs.gram.view());
  });

  std::vector<std::vector<compressed_model>> results(ways.size());
  for (const double ratio : keep) {
    compressed_model result;
    for (const auto& p : parameters) result.parameters += p.rows * p.cols;
    for (std::size_t h = 0; h < hidden.size(); ++h) {
      const auto& p = parameters[hidden[h]];
      const index_t k = matopt::rank_for(ratio, p.rows, p.cols);
      if (k == std::min(p.rows, p.cols)) continue;
      matopt::factored f = decomposed[h]->at(k);
      result.parameters += f.parameters() - p.rows * p.cols;
      result.ridge = std::max(result.ridge, f.ridge);
      result.layers.emplace(hidden[h], std::move(f));
    }
    for (std::size_t w = 0; w < ways.size(); ++w) {
      result.stored = after_round_trip(m, cpu, result, ways[w], loss);
      results[w].push_back(result);
    }
  }
  return results;
}

void save_compressed(trained_model& m, const compressed_model& c, const std::string& path, const storage& way) {
  matopt::tensor_file file;
  store_model(m, file);
  const auto parameters = m.model.parameters();
  const auto put = [&](const std::string& name, const float* values, index_t rows, index_t cols) {
    if (way.bits == 32)
      store_tensor(file, name, values, rows, cols);
    else if (way.bits == 16)
      store_bfloat16(file, name, values, rows, cols);
    else
      store_quantized(file, name, values, rows, cols, way.bits);
  };
  for (std::size_t i = 0; way.bits != 32 && i < parameters.size(); ++i)
    if (const auto& p = parameters[i]; p.kind == tensor_role::hidden && !c.layers.contains(i)) {
      file.tensors.erase("model." + p.name);
      put("model." + p.name, p.value, p.rows, p.cols);
    }
  for (const auto& [index, f] : c.layers) {
    const std::string name = "model." + parameters[index].name;
    file.tensors.erase(name);
    const auto store = [&](const std::string& side, const matopt::dense<double>& d) {
      const double* values = d.view().data;
      std::vector<float> rounded(static_cast<std::size_t>(d.rows() * d.cols()));
      std::transform(values, values + rounded.size(), rounded.begin(), [](double x) { return static_cast<float>(x); });
      put(name + side, rounded.data(), d.rows(), d.cols());
    };
    store(".left", f.left), store(".right", f.right);
  }
  if (way.entropy) entropy_code(file);
  file.save(path);
}

std::vector<matrix_report> inspect(trained_model& m, matopt::eigen_backend& cpu) {
  std::vector<matrix_report> out;
  for (const auto& p : m.model.parameters()) {
    if (p.kind != tensor_role::hidden) continue;
    const auto w = matopt::row_major(p.value, p.rows, p.cols);
    const matopt::spectrum s(cpu, w);
    const auto rows = matopt::row_norm_extremes(w);
    out.push_back({p.name, p.rows, p.cols, s.spectral_norm(), s.stable_rank(), s.effective_rank(), rows.least,
                   rows.greatest, matopt::row_coherence(s, w), matopt::weight_rate::of(w), s.values()});
  }
  return out;
}

matopt::weight_rate rate_of(trained_model& m) {
  std::vector<matopt::view<const float>> hidden;
  for (const auto& p : m.model.parameters())
    if (p.kind == tensor_role::hidden)
      hidden.push_back(matopt::row_major(static_cast<const float*>(p.value), p.rows, p.cols));
  return matopt::weight_rate::of(std::span<const matopt::view<const float>>(hidden));
}

}  // namespace small_gpt
