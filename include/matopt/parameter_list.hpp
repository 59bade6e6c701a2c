// parameter_list: the caller's matrices with their gradients, by name; checks what is added.
//
// An added view is one matrix, a stack of them ("name.0", "name.1", ...), or, with row_blocks, each of its blocks;
// every one of these becomes a parameter. Errors name the view and what is wrong with it; after one the list is as
// before.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/check_view.hpp"
#include "core/overlap.hpp"
#include "core/settings.hpp"
#include "core/utf8.hpp"

namespace matopt {

// What may differ from parameter to parameter.
struct parameter_options {
  double lr_scale = 1;                // factor of the learning rate
  std::optional<double> decay{};      // replaces the rule's decay
  std::vector<index_t> row_blocks{};  // splits the rows (fused QKV, heads): each block is a matrix of its own
};

template <class W, class G>
struct parameter {
  std::string name, added_as;
  index_t matrix, first_row;        // which part of the view it was added with
  index_t added_rows, added_batch;  // the extent of that view
  view<W> w;
  view<const G> g, r;  // r: the reference gradient; g where there is none
  double lr_scale;
  std::optional<double> decay;
};

template <class W, class G>
class parameter_list {
 public:
  using gradient = view<const G> parameter<W, G>::*;  // which of the two

  // `two`: with a reference gradient of its own; without, r is g. `may_decay`: the rule has a decay to replace.
  void add(const std::string& name, view<W> w, view<const G> g, view<const G> r, const parameter_options& o, bool two,
           bool may_decay) {
    detail::check_name("parameter name", name);
    check_pair(name, w, g, "gradient");
    if (two) check_pair(name, w, r, "reference gradient");
    check_options(name, w, o, may_decay);
    for (const auto& p : items_)
      if (p.added_as == name) throw bad_value("parameter name", '"' + name + '"', "a name not used before");
    std::vector<parameter<W, G>> fresh;
    for (index_t b = 0; b < w.batch; ++b) {
      const std::string matrix_name = w.batch > 1 ? name + "." + std::to_string(b) : name;
      index_t first = 0;
      const std::vector<index_t> blocks = o.row_blocks.empty() ? std::vector<index_t>{w.rows} : o.row_blocks;
      for (std::size_t i = 0; i < blocks.size(); first += blocks[i++]) {
        const auto part = [&](const auto& v) { return v.matrix(b).row_block(first, blocks[i]); };
        fresh.push_back({blocks.size() > 1 ? matrix_name + "." + std::to_string(i) : matrix_name, name, b, first,
                         w.rows, w.batch, part(w), part(g), part(r), o.lr_scale, o.decay});
      }
    }
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      for (const auto& p : items_) check_free(fresh[i], p);
      for (std::size_t j = 0; j < i; ++j) check_free(fresh[i], fresh[j]);
      check_own(fresh[i], two);
    }
    items_.insert(items_.end(), fresh.begin(), fresh.end());
  }

  // The gradient of what was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, view<const G> g, gradient which) {
    std::vector<std::pair<parameter<W, G>*, view<const G>>> moved;
    for (auto& p : items_) {
      if (p.added_as != name) continue;
      if (!g.data || g.table || g.batch != p.added_batch || g.rows != p.added_rows || g.cols != p.g.cols ||
          g.row_stride != (p.*which).row_stride || g.col_stride != (p.*which).col_stride)
        throw bad_value("gradient of \"" + name + "\"", detail::text(g), "a view like the one it was added with");
      if (!detail::addressable(g))
        throw bad_value("gradient of \"" + name + "\"", detail::text(g), "a view whose bytes can be addressed");
      const view<const G> to = g.matrix(p.matrix).row_block(p.first_row, p.g.rows);
      for (const auto& other : items_)
        if (detail::overlap(other.w, to))
          throw bad_value("gradient of \"" + name + "\"", "memory shared with the weight of \"" + other.name + '"',
                          "memory of its own");
      moved.emplace_back(&p, to);
    }
    if (moved.empty()) {
      std::vector<std::string> known;
      for (const auto& p : items_) known.push_back(p.added_as);
      throw error("no parameter \"" + name + "\"; nearest: \"" + nearest_name(name, known) + '"');
    }
    for (auto& [p, to] : moved) p->*which = to;
  }

  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  const parameter<W, G>& operator[](std::size_t i) const { return items_[i]; }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  static void check_pair(const std::string& name, const view<W>& w, const view<const G>& g, const std::string& kind) {
    const std::string weight = "weight of \"" + name + "\"", gradient = kind + " of \"" + name + "\"";
    detail::check_view(weight, w);
    detail::check_view(gradient, g);
    if (w.rows != g.rows || w.cols != g.cols || w.batch != g.batch)
      throw bad_value(gradient, detail::text(g), "the shape of its weight, " + detail::text(w));
  }
  static void check_options(const std::string& name, const view<W>& w, const parameter_options& o, bool may_decay) {
    const auto legal = range{.low = 0};
    if (!legal.contains(o.lr_scale))
      throw bad_value("lr_scale of \"" + name + "\"", detail::text(o.lr_scale), detail::text(legal));
    if (o.decay) {
      if (!legal.contains(*o.decay))
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), detail::text(legal));
      if (!may_decay)
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), "not set: this rule has no decay");
    }
    index_t sum = 0;
    for (const index_t rows : o.row_blocks) {
      if (rows < 1) throw bad_value("row_blocks of \"" + name + "\"", std::to_string(rows), ">= 1 each");
      sum = detail::sum(sum, rows);
    }
    if (!o.row_blocks.empty() && sum != w.rows)
      throw bad_value("row_blocks of \"" + name + "\"",
                      (sum == detail::largest_index ? "a sum of at least " : "a sum of ") + std::to_string(sum),
                      std::to_string(w.rows) + ", the rows of the weight");
  }
  static void check_own(const parameter<W, G>& p, bool two) {
    const auto refuse = [&](const char* what, const char* with) {
      throw bad_value(what + (" of \"" + p.name + '"'), std::string("memory shared with its ") + with,
                      "memory of its own");
    };
    if (detail::overlap(p.w, p.g)) refuse("gradient", "weight");
    if (!two) return;
    if (detail::overlap(p.w, p.r)) refuse("reference gradient", "weight");
    if (detail::overlap(p.g, p.r)) refuse("reference gradient", "gradient");
  }
  static void check_free(const parameter<W, G>& fresh, const parameter<W, G>& p) {
    if (p.name == fresh.name) throw bad_value("parameter name", '"' + fresh.name + '"', "a name not used before");
    const auto meets = [&](const auto& v) {
      return detail::overlap(p.w, v) || detail::overlap(p.g, v) || detail::overlap(p.r, v);
    };
    if (meets(fresh.w) || meets(fresh.g) || meets(fresh.r))
      throw bad_value("memory of \"" + fresh.name + "\"", "shared with \"" + p.name + '"', "memory of its own");
  }

  std::vector<parameter<W, G>> items_;
};

}  // namespace matopt
