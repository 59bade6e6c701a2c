// parameter_list: the caller's matrices with their gradients, by name; checks what is added.
//
// An added view is one matrix, a stack of them ("name.0", "name.1", ...), or, with row_blocks, each of its blocks;
// every one of these becomes a parameter. A view without elements (an empty shard) is one, too; a stack of none has no
// parameter and takes its name only. Names and memory are claimed (core/claims.hpp). Errors name the view and what is
// wrong with it; after one the list is as before.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "../core/check_view.hpp"
#include "../core/overlap.hpp"
#include "../core/settings.hpp"
#include "../core/utf8.hpp"
#include "claims.hpp"
#include "parameter_checks.hpp"

namespace MATOPT_NAMESPACE {

template <class W, class G>
class parameter_list {
 public:
  using gradient = view<const G> parameter<W, G>::*;  // which of the two

  // `two`: with a reference gradient of its own; without, r is g. `group`: of the rule that it takes.
  // `has_decay`: that rule has a setting of that name. `states(rows, cols)`: the names of the state that it keeps of a
  // matrix.
  template <class States>
  [[gnu::cold]] void add(const std::string& name, view<W> w, view<const G> g, view<const G> r,
                         const parameter_options& o, bool two, std::size_t group, bool has_decay, States states) {
    detail::check_name("parameter name", name);
    if (name.starts_with(reserved))
      throw bad_value("parameter name", '"' + name + '"',
                      "a name that does not begin with \"optimizer.\", as state does");
    detail::check_pair(name, w, g, "gradient");
    if (two) detail::check_pair(name, w, r, "reference gradient");
    detail::check_options(name, w, o, has_decay);
    claim_moved_memory();
    check_memory(name, w, g, two ? &r : nullptr);
    const std::size_t number = next_;
    std::vector<parameter<W, G>> fresh;
    for (index_t b = 0; b < w.batch; ++b) {
      const std::string matrix_name = w.batch > 1 ? name + "." + std::to_string(b) : name;
      index_t first = 0;
      const std::vector<index_t> blocks = o.row_blocks.empty() ? std::vector<index_t>{w.rows} : o.row_blocks;
      for (std::size_t i = 0; i < blocks.size(); first += blocks[i++]) {
        const auto part = [&](const auto& v) { return v.matrix(b).row_block(first, blocks[i]); };
        fresh.push_back({blocks.size() > 1 ? matrix_name + "." + std::to_string(i) : matrix_name, number, group, b,
                         first, w.rows, w.batch, part(w), part(g), part(r), o.lr_scale, o.decay});
      }
    }
    const bool split = fresh.size() != 1 || fresh.front().name != name;
    if (split) check_free(name, name, nullptr);
    for (const auto& p : fresh) check_free(name, p.name, &states(p.w.rows, p.w.cols));

    added_.push_back({name, number, group, w, g, r, two});
    numbers_.emplace(name, number);
    if (split) names_.take(name, number, nullptr);
    std::size_t at = 0;
    for (auto& p : fresh) {
      names_.take(p.name, number, &states(p.w.rows, p.w.cols), at++);
      items_.push_back(std::move(p));
    }
    claim_memory(added_.back());
    ++next_;
  }
  // Forgets what was added by these names.
  [[gnu::cold]] void drop(std::span<const std::string> names) {
    claim_moved_memory();
    std::unordered_set<std::size_t> gone;
    for (const std::string& name : names) gone.insert(find(name).view_number);
    for (const auto& p : items_)
      if (gone.contains(p.view_number)) names_.give_back(p.name);
    std::erase_if(items_, [&](const auto& p) { return gone.contains(p.view_number); });
    std::erase_if(added_, [&](const added_view& v) {
      if (!gone.contains(v.view_number)) return false;
      weights_.remove(detail::footprint_of(v.w), v.view_number);
      gradients_.remove(detail::footprint_of(v.g), v.view_number);
      if (v.two) gradients_.remove(detail::footprint_of(v.r), v.view_number);
      names_.give_back(v.name), numbers_.erase(v.name);
      return true;
    });
  }
  // What may differ from parameter to parameter, of what was added as `name`.
  void set_options(const std::string& name, double lr_scale, std::optional<double> decay, bool has_decay) {
    const added_view& of = find(name);
    detail::check_options(name, of.w, {lr_scale, decay, {}}, has_decay);
    for (auto& p : items_)
      if (p.view_number == of.view_number) p.lr_scale = lr_scale, p.decay = decay;
  }

  // The gradient of what was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, view<const G> g, gradient which) {
    claim_moved_memory();
    added_view& was = find(name);
    view<const G>& bound = which == &parameter<W, G>::g ? was.g : was.r;
    check_moved(detail::label{"gradient", name}, g, bound);
    const auto from = detail::footprint_of(bound), to = detail::footprint_of(g);
    if (const std::size_t owner = weights_.owner_of(to); owner != detail::memory_claims::nobody)
      throw bad_value(detail::label{"gradient", name}, "memory shared with the weight of \"" + name_of(owner) + '"',
                      "memory of its own");
    gradients_.add(to, was.view_number), gradients_.remove(from, was.view_number);
    bound = g;
    if (!was.two) was.r = g;
    for (auto p = first_of(items_, was.view_number); p != items_.end() && p->view_number == was.view_number; ++p)
      bind(*p, was);
  }
  // The weights, gradients and reference gradients of all views, in the order in which they were added; an empty span
  // leaves them where they are, and a view without a reference gradient does not look at its entry. Takes linear time,
  // but for a sort of addresses. Null: there is no gradient, and where the last one was may be another's memory by now.
  // Returns whether anything has moved.
  bool rebind(std::span<W* const> weights, std::span<const G* const> gradients, std::span<const G* const> references) {
    check_count("weights", weights.size(), !weights.empty());
    check_count("gradients", gradients.size(), !gradients.empty());
    check_count("reference gradients", references.size(), !references.empty());
    bool moved = false;
    for (std::size_t i = 0; i < added_.size() && !moved; ++i)
      moved = (!weights.empty() && weights[i] != added_[i].w.data) ||
              (!gradients.empty() && gradients[i] != added_[i].g.data) ||
              (!references.empty() && added_[i].two && references[i] != added_[i].r.data);
    if (!moved) return false;
    auto now = places_of_all();
    for (std::size_t i = 0; i < added_.size(); ++i) {
      place& to = now[i];
      if (!weights.empty()) to.w.data = weights[i];
      if (!gradients.empty()) to.g.data = gradients[i];
      if (!added_[i].two)
        to.r = to.g;
      else if (!references.empty())
        to.r.data = references[i];
      if (to.w.data != added_[i].w.data) check_moved(detail::label{"weight", added_[i].name}, to.w, added_[i].w);
      if (to.g.data && to.g.data != added_[i].g.data)
        check_moved(detail::label{"gradient", added_[i].name}, to.g, added_[i].g);
      if (added_[i].two && to.r.data && to.r.data != added_[i].r.data)
        check_moved(detail::label{"reference gradient", added_[i].name}, to.r, added_[i].r);
    }
    check_apart(now);
    for (std::size_t i = 0; i < added_.size(); ++i)
      added_[i].w = now[i].w, added_[i].g = now[i].g, added_[i].r = now[i].r;
    std::size_t i = 0;  // both are in the order of addition
    for (auto& p : items_) {
      while (added_[i].view_number != p.view_number) ++i;
      bind(p, added_[i]);
    }
    moved_ = true;
    return true;
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

  // Views that were added, in that order.
  std::size_t views() const { return added_.size(); }
  const std::string& view_name(std::size_t i) const { return added_[i].name; }
  std::size_t view_number(std::size_t i) const { return added_[i].view_number; }
  W* weight_at(std::size_t i) const { return added_[i].w.data; }
  const G* gradient_at(std::size_t i) const { return added_[i].g.data; }
  bool has_reference(std::size_t i) const { return added_[i].two; }
  const G* reference_at(std::size_t i) const { return added_[i].r.data; }
  bool has_elements(std::size_t i) const { return !detail::no_elements(added_[i].w); }
  // The group of what was added as `name`.
  std::size_t group_of(const std::string& name) const { return find(name).group; }
  // Marks the matrices of what was added as `name`, or the one that is called so.
  void mark(const std::string& name, std::vector<bool>& chosen) const {
    const auto view = numbers_.find(name);
    const auto* const one = view == numbers_.end() ? names_.find(name) : nullptr;
    if (view == numbers_.end() && !one) find(name);  // throws
    const std::size_t number = one ? one->owner : view->second;
    auto i = static_cast<std::size_t>(first_of(items_, number) - items_.begin());
    if (one) chosen[i + one->place] = true;
    for (; !one && i < items_.size() && items_[i].view_number == number; ++i) chosen[i] = true;
  }

  bool nothing_added() const { return added_.empty(); }
  bool knows(const std::string& name) const { return names_.contains(name); }
  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  const parameter<W, G>& operator[](std::size_t i) const { return items_[i]; }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  static constexpr std::string_view reserved = "optimizer.";  // weights and state may be in one file
  struct added_view {
    std::string name;
    std::size_t view_number, group;  // the number is unlike that of any other view, also of one that was dropped
    view<W> w;
    view<const G> g, r;
    bool two;
  };
  struct place {
    view<W> w;
    view<const G> g, r;
  };

  static void bind(parameter<W, G>& p, const added_view& to) {
    const auto part = [&](const auto& v) { return v.matrix(p.matrix).row_block(p.first_row, p.w.rows); };
    p.w = part(to.w), p.g = part(to.g), p.r = part(to.r);
  }
  void claim_memory(const added_view& v) {
    weights_.add(detail::footprint_of(v.w), v.view_number);
    if (v.g.data) gradients_.add(detail::footprint_of(v.g), v.view_number);
    if (v.two && v.r.data) gradients_.add(detail::footprint_of(v.r), v.view_number);
  }
  // Numbers grow with the order of addition.
  template <class Items>
  static auto first_of(Items& items, std::size_t number) {
    return std::lower_bound(items.begin(), items.end(), number,
                            [](const auto& x, std::size_t n) { return x.view_number < n; });
  }
  const std::string& name_of(std::size_t number) const { return first_of(added_, number)->name; }
  // Throws if a matrix of what is added as `view` cannot be called `name`.
  void check_free(const std::string& view, const std::string& name, const std::vector<std::string>* states) const {
    using kind = detail::name_claims::kind;
    const auto found = names_.look_up(name, states);
    if (found.is == kind::free) return;
    const std::string& owner = name_of(found.owner);
    throw bad_value("parameter name", '"' + (found.of_state ? view + "\", with state \"" + found.name : name) + '"',
                    "a name not used before: \"" + found.name + "\" is " +
                        (found.is == kind::state ? "state of \"" + owner + '"'
                         : owner == found.name   ? "taken"
                                                 : "a part of \"" + owner + '"'));
  }
  // After a rebind() of all, claims are only brought up to date when somebody asks for them.
  void claim_moved_memory() {
    if (!std::exchange(moved_, false)) return;
    weights_ = {}, gradients_ = {};
    for (const added_view& v : added_) claim_memory(v);
  }
  std::vector<place> places_of_all() const {
    std::vector<place> out;
    out.reserve(added_.size());
    for (const added_view& v : added_) out.push_back({v.w, v.g, v.r});
    return out;
  }
  void check_count(const char* what, std::size_t count, bool given) const {
    if (given && count != added_.size())
      throw bad_value("number of " + std::string(what), std::to_string(count),
                      std::to_string(added_.size()) + ", one for each view that was added");
  }
  template <class T>
  static void check_moved(const detail::label& what, const view<T>& to, const view<T>& from) {
    if (to.table || (!to.data && !detail::no_elements(to)) || !same_layout(to, from))
      throw bad_value(what, detail::text(to), "a view like the one it was added with");
    if (!detail::addressable(to)) throw bad_value(what, detail::text(to), "a view whose bytes can be addressed");
    if (!detail::no_elements(to)) detail::check_aligned(what, to.data);
  }
  // Throws if two of these places share memory.
  void check_apart(const std::vector<place>& all) const {
    struct span_of {
      std::int64_t first, end;
      std::size_t view;
      int kind;  // 0: weight, 1: gradient, 2: reference
    };
    std::vector<span_of> spans;
    spans.reserve(3 * all.size());
    const auto add = [&](const auto& v, std::size_t i, int kind) {
      if (const auto f = detail::footprint_of(v); v.data && !f.empty()) spans.push_back({f.first, f.end(), i, kind});
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
      add(all[i].w, i, 0), add(all[i].g, i, 1);
      if (added_[i].two) add(all[i].r, i, 2);
    }
    std::sort(spans.begin(), spans.end(), [](const span_of& a, const span_of& b) { return a.first < b.first; });
    const auto bytes = [&](const span_of& s) {
      return s.kind == 0   ? detail::footprint_of(all[s.view].w)
             : s.kind == 1 ? detail::footprint_of(all[s.view].g)
                           : detail::footprint_of(all[s.view].r);
    };
    std::size_t begin = 0;  // of the spans that may reach as far as the next one
    std::int64_t end = std::numeric_limits<std::int64_t>::min();
    for (std::size_t i = 0; i < spans.size(); ++i) {
      if (spans[i].first >= end) begin = i;
      for (std::size_t j = begin; j < i; ++j)
        if (spans[j].end > spans[i].first && detail::overlap(bytes(spans[j]), bytes(spans[i]))) {
          const char* const kinds[] = {"weight", "gradient", "reference gradient"};
          const auto name = [&](const span_of& s) {
            return std::string(kinds[s.kind]) + " of \"" + added_[s.view].name + '"';
          };
          throw bad_value(name(spans[i]), "memory shared with the " + name(spans[j]), "memory of its own");
        }
      end = std::max(end, spans[i].end);
    }
  }

  template <class T, class U>
  static bool same_layout(const view<T>& a, const view<U>& b) {
    return a.rows == b.rows && a.cols == b.cols && a.batch == b.batch && a.row_stride == b.row_stride &&
           a.col_stride == b.col_stride;
  }
  template <class Self>
  static auto& find_in(Self& self, const std::string& name) {
    const auto at = self.numbers_.find(name);
    if (at != self.numbers_.end()) return *first_of(self.added_, at->second);
    std::vector<std::string> known;
    for (const auto& v : self.added_) known.push_back(v.name);
    throw error("no parameter \"" + name + "\"; nearest: \"" + nearest_name(name, known) + '"');
  }
  added_view& find(const std::string& name) { return find_in(*this, name); }
  const added_view& find(const std::string& name) const { return find_in(*this, name); }

  // No byte of a weight is in another view, of this parameter or of others; nor is one of a gradient.
  [[gnu::cold]] void check_memory(const std::string& name, const view<W>& w, const view<const G>& g,
                                  const view<const G>* r) const {
    const auto own = [&](const std::string& what, const char* with) {
      throw bad_value(what + " of \"" + name + '"', std::string("memory shared with its ") + with, "memory of its own");
    };
    const auto of_w = detail::footprint_of(w), of_g = detail::footprint_of(g);
    const auto of_r = r ? detail::footprint_of(*r) : detail::footprint{};
    detail::check_stack(name, w), detail::check_stack(name, g);
    if (r) detail::check_stack(name, *r);
    if (detail::overlap(of_w, of_g)) own("gradient", "weight");
    if (detail::overlap(of_w, of_r)) own("reference gradient", "weight");
    if (detail::overlap(of_g, of_r)) own("reference gradient", "gradient");
    for (const auto* mine : {&of_w, &of_g, &of_r})
      for (const auto* taken : {&weights_, &gradients_})
        if (const std::size_t owner = taken->owner_of(*mine); owner != detail::memory_claims::nobody)
          throw bad_value("memory of \"" + name + '"', "shared with \"" + name_of(owner) + '"', "memory of its own");
  }
  std::vector<added_view> added_;
  std::unordered_map<std::string, std::size_t> numbers_;  // of the views in added_, by name
  detail::name_claims names_;
  detail::memory_claims weights_, gradients_;
  std::size_t next_ = 0;
  bool moved_ = false;  // views lie elsewhere than the claims say
  std::vector<parameter<W, G>> items_;
};

}  // namespace MATOPT_NAMESPACE
