// A weight cut to a rank. Always in double and on the CPU, whatever the backend: it is done once, after a training.
#include <algorithm>
#include <matopt/compress/truncate.hpp>
#include <matopt/eigen.hpp>

#include "case.hpp"
#include "matrices.hpp"
#include "settings_reader.hpp"

namespace replay {

using namespace matopt;

void run_compression(const json& c, outcome& out) {
  eigen_backend backend(1);
  matrix<double> w = matrix_of<double>("W0", member(c, "W0"));
  matrix<double> h = matrix_of<double>("H", member(c, "H"), w.cols, w.cols);
  const std::string rule = member(c, "rule");
  settings_reader settings(rule, member(c, "settings"));
  const double keep = settings.number("keep", 1);
  const index_t rank =
      settings.has("rank") ? settings.whole("rank", 1, 1, std::min(w.rows, w.cols)) : rank_for(keep, w.rows, w.cols);
  settings.finish();
  const auto cut = [&] {
    if (rule == "truncated_svd") return truncation::plain(backend, w.view()).at(rank);
    if (rule == "svd_llm_whitening") return truncation::whitened(backend, w.view(), h.view()).at(rank);
    throw error("unknown compression \"" + rule + "\"; nearest: \"" +
                nearest_name(rule, {"truncated_svd", "svd_llm_whitening"}) + '"');
  };
  const dense<double> product = cut().product();
  const double loss = output_loss(w.view(), product.view(), h.view());
  if (c.contains("W")) {
    const json& theirs = c.at("W");
    out.error = distance(product.view(), matrix_of<double>("W", theirs, w.rows, w.cols));
    if (c.contains("loss")) {
      // Relative to the loss of a weight of zeros: a loss can be nothing but rounding.
      const matrix<double> zeros{w.rows, w.cols, std::vector<double>(w.data.size())};
      const double size = output_loss(w.view(), matrix<double>(zeros).view(), h.view());
      const double off = std::abs(loss - member(c, "loss").get<double>()) / (size > 0 ? size : 1);
      out.error = off <= *out.error ? *out.error : std::isnan(off) ? std::numeric_limits<double>::infinity() : off;
    }
  }
  out.computed["W"] = json_of(product.view());
  out.computed["loss"] = loss;
}

}  // namespace replay
