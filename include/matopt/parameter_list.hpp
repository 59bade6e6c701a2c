// parameter_list: the caller's matrices with their gradients, by name; checks what is added.
//
// An added view is one matrix, a stack of them ("name.0", "name.1", ...), or, with row_blocks, each of its blocks;
// every one of these becomes a parameter. A view without elements (an empty shard) is one, too; a stack of none has no
// parameter and takes its name only. Names and memory are claimed (core/claims.hpp). Errors name the view and what is
// wrong with it; after one the list is as before.
#pragma once
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/check_view.hpp"
#include "core/claims.hpp"
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

  // `two`: with a reference gradient of its own; without, r is g. `decays`: how many settings of the rule are called
  // decay. `states(rows, cols)`: the names of the state that the rule keeps of a matrix.
  template <class States>
  void add(const std::string& name, view<W> w, view<const G> g, view<const G> r, const parameter_options& o, bool two,
           index_t decays, States states) {
    detail::check_name("parameter name", name);
    if (name.starts_with(reserved))
      throw bad_value("parameter name", '"' + name + '"',
                      "a name that does not begin with \"optimizer.\", as state does");
    check_pair(name, w, g, "gradient");
    if (two) check_pair(name, w, r, "reference gradient");
    check_options(name, w, o, decays);
    check_memory(name, w, g, two ? &r : nullptr);
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
    std::vector<std::pair<std::string, detail::claims::name_use>> names{{name, {name, false}}};
    for (const auto& p : fresh) {
      if (p.name != name) names.push_back({p.name, {name, false}});
      for (const std::string& state : states(p.w.rows, p.w.cols)) names.push_back({p.name + "." + state, {name, true}});
    }
    claims_->take(names);
    try {
      claims_->weights.add(detail::footprint_of(w), name);
      for (const auto* v : {&g, two ? &r : nullptr})
        if (v) claims_->gradients.add(detail::footprint_of(*v), name);
      items_.insert(items_.end(), fresh.begin(), fresh.end());
    } catch (...) {
      claims_->give_back(names);
      throw;
    }
    added_.emplace(name, added_view{w, g, r, two});
  }

  // The gradient of what was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, view<const G> g, gradient which) {
    added_view& was = find(name);
    view<const G>& bound = which == &parameter<W, G>::g ? was.g : was.r;
    if (g.table || (!g.data && !detail::no_elements(g)) || !same_layout(g, bound))
      throw bad_value("gradient of \"" + name + "\"", detail::text(g), "a view like the one it was added with");
    if (!detail::addressable(g))
      throw bad_value("gradient of \"" + name + "\"", detail::text(g), "a view whose bytes can be addressed");
    const auto from = detail::footprint_of(bound), to = detail::footprint_of(g);
    if (const std::string* owner = claims_->weights.owner_of(to))
      throw bad_value("gradient of \"" + name + "\"", "memory shared with the weight of \"" + *owner + '"',
                      "memory of its own");
    claims_->gradients.add(to, name), claims_->gradients.remove(from, name);
    bound = g;
    for (auto& p : items_) {
      if (p.added_as != name) continue;
      p.*which = g.matrix(p.matrix).row_block(p.first_row, p.w.rows);
      if (!was.two) p.r = p.g;
    }
  }
  // Throws bad_value unless what was added as `name` lies where these views are.
  void check_bound(const std::string& name, view<const W> w, view<const G> g, const view<const G>* r) const {
    const added_view& bound = find(name);
    const auto check = [&](const std::string& what, const auto& here, const auto& there, const std::string& remedy) {
      if (here.data != there.data || !same_layout(here, there) ||
          (here.batch > 1 && here.batch_stride != there.batch_stride))
        throw bad_value(what + " of \"" + name + '"', "not where the optimizer looks for it: it was moved or resized",
                        "where it was added, " + remedy);
    };
    check("weight", w, as_const(bound.w), "for as long as the optimizer lives");
    check("gradient", g, bound.g, "or where rebind() said last");
    if (r) check("reference gradient", *r, bound.r, "or where rebind_reference() said last");
  }

  // From now on no name and no memory of one list may be in the other. Throws if some is.
  void share_claims(parameter_list& other) {
    if (claims_ == other.claims_) return;
    claims_->take_over(*other.claims_);
    other.claims_ = claims_;
  }

  bool nothing_added() const { return added_.empty(); }
  bool knows(const std::string& name) const { return claims_->names.contains(name); }
  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  const parameter<W, G>& operator[](std::size_t i) const { return items_[i]; }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  static constexpr std::string_view reserved = "optimizer.";  // weights and state may be in one file
  struct added_view {
    view<W> w;
    view<const G> g, r;
    bool two;
  };

  template <class T, class U>
  static bool same_layout(const view<T>& a, const view<U>& b) {
    return a.rows == b.rows && a.cols == b.cols && a.batch == b.batch && a.row_stride == b.row_stride &&
           a.col_stride == b.col_stride;
  }
  template <class Self>
  static auto& find_in(Self& self, const std::string& name) {
    const auto at = self.added_.find(name);
    if (at != self.added_.end()) return at->second;
    std::vector<std::string> known;
    for (const auto& [k, unused] : self.added_) known.push_back(k);
    throw error("no parameter \"" + name + "\"; nearest: \"" + nearest_name(name, known) + '"');
  }
  added_view& find(const std::string& name) { return find_in(*this, name); }
  const added_view& find(const std::string& name) const { return find_in(*this, name); }

  static void check_pair(const std::string& name, const view<W>& w, const view<const G>& g, const std::string& kind) {
    const std::string weight = "weight of \"" + name + "\"", gradient = kind + " of \"" + name + "\"";
    detail::check_view(weight, w);
    detail::check_view(gradient, g, true);
    if (w.rows == g.rows && w.cols == g.cols && w.batch == g.batch) return;
    if (w.empty() && !g.empty())
      throw bad_value(weight, detail::text(w), "the shape of its gradient, " + detail::text(g));
    throw bad_value(gradient, detail::text(g), "the shape of its weight, " + detail::text(w));
  }
  static void check_options(const std::string& name, const view<W>& w, const parameter_options& o, index_t decays) {
    const auto legal = range{.low = 0};
    if (!legal.contains(o.lr_scale))
      throw bad_value("lr_scale of \"" + name + "\"", detail::text(o.lr_scale), detail::text(legal));
    if (o.decay) {
      if (!legal.contains(*o.decay))
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), detail::text(legal));
      if (decays == 0)
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), "not set: this rule has no decay");
      if (decays > 1)
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay),
                        "not set: this rule has " + std::to_string(decays) + " settings of that name");
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
  // No byte of a weight is in another view, of this parameter or of others; nor is one of a gradient.
  void check_memory(const std::string& name, const view<W>& w, const view<const G>& g, const view<const G>* r) const {
    const auto own = [&](const std::string& what, const char* with) {
      throw bad_value(what + " of \"" + name + '"', std::string("memory shared with its ") + with, "memory of its own");
    };
    const auto weight = detail::footprint_of(w), gradient = detail::footprint_of(g);
    const auto reference = r ? detail::footprint_of(*r) : detail::footprint{};
    check_stack(name, w), check_stack(name, g);
    if (r) check_stack(name, *r);
    if (detail::overlap(weight, gradient)) own("gradient", "weight");
    if (detail::overlap(weight, reference)) own("reference gradient", "weight");
    if (detail::overlap(gradient, reference)) own("reference gradient", "gradient");
    for (const auto* mine : {&weight, &gradient, &reference})
      for (const auto* taken : {&claims_->weights, &claims_->gradients})
        if (const std::string* owner = taken->owner_of(*mine))
          throw bad_value("memory of \"" + name + '"', "shared with \"" + *owner + '"', "memory of its own");
  }
  // Stacked matrices do not reach into one another; a gradient may be one for all.
  template <class T>
  static void check_stack(const std::string& name, const view<T>& v) {
    if (v.batch <= 1 || v.batch_stride == 0 || detail::footprint_of(v).nested()) return;
    const auto first = detail::footprint_of(v.matrix(0));
    for (index_t b = 1; b < v.batch; ++b)
      if (detail::overlap(first, detail::footprint_of(v.matrix(b))))
        throw bad_value("memory of \"" + name + '.' + std::to_string(b) + '"', "shared with \"" + name + ".0\"",
                        "memory of its own");
  }

  std::unordered_map<std::string, added_view> added_;
  std::shared_ptr<detail::claims> claims_ = std::make_shared<detail::claims>();
  std::vector<parameter<W, G>> items_;
};

}  // namespace matopt
