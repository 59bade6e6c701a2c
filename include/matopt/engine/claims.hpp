// claims: which names and which memory are taken, so that no two parameters of an optimizer share either.
//
//   names    of views that were added, of the matrices that they are split into, and of all their state in a checkpoint
//   memory   of weights, and of gradients, as footprints of whole views
//
// Who has a claim is said by a number. Everything costs a logarithm of what is there at most. Only views whose bytes
// interleave are compared with each other.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../core/overlap.hpp"

namespace MATOPT_NAMESPACE::detail {

// Footprints, and whose they are.
class memory_claims {
 public:
  static constexpr std::size_t nobody = static_cast<std::size_t>(-1);

  // The owner of memory that meets f, the first of them if there are several; nobody if it is free.
  std::size_t owner_of(const footprint& f) const {
    const claim* owner = nullptr;
    if (f.empty()) return nobody;
    for (auto at = first_near(f); at != near_.end() && at->first < f.end(); ++at)
      for (const claim& c : at->second.claims)
        if ((!owner || c.order < owner->order) && overlap(c.bytes, f)) owner = &c;
    return owner ? owner->owner : nobody;
  }
  [[gnu::cold]] void add(const footprint& f, std::size_t owner) {
    if (f.empty()) return;
    neighbourhood all{f.end(), {{f, owner, count_++}}};
    std::int64_t begin = f.first;
    for (auto at = first_near(f); at != near_.end() && at->first < f.end(); at = near_.erase(at)) {
      begin = std::min(begin, at->first), all.end = std::max(all.end, at->second.end);
      if (at->second.claims.size() > all.claims.size()) std::swap(at->second.claims, all.claims);
      std::move(at->second.claims.begin(), at->second.claims.end(), std::back_inserter(all.claims));
    }
    near_.emplace(begin, std::move(all));
  }
  [[gnu::cold]] void remove(const footprint& f, std::size_t owner) {
    const auto at = f.empty() ? near_.end() : first_near(f);
    if (at == near_.end()) return;
    auto& claims = at->second.claims;
    for (auto c = claims.begin(); c != claims.end(); ++c)
      if (c->bytes.first == f.first && c->owner == owner) {
        claims.erase(c);
        break;
      }
    if (claims.empty()) near_.erase(at);
  }

 private:
  struct claim {
    footprint bytes;
    std::size_t owner;
    std::int64_t order;
  };
  struct neighbourhood {  // claims whose spans, from first to last byte, meet
    std::int64_t end;
    std::vector<claim> claims;
  };
  using map = std::map<std::int64_t, neighbourhood>;  // by first byte; no two of them meet

  template <class Map>
  static auto first_in(Map& spans, const footprint& f) {
    auto at = spans.upper_bound(f.first);
    if (at != spans.begin() && std::prev(at)->second.end > f.first) --at;
    return at;
  }
  map::iterator first_near(const footprint& f) { return first_in(near_, f); }
  map::const_iterator first_near(const footprint& f) const { return first_in(near_, f); }

  map near_;
  std::int64_t count_ = 0;
};

// Names of views and matrices. A matrix takes a name for each piece of its state, too, behind a dot; these are not
// stored, for the name of a piece has no dot, so that it is known whose it would be.
class name_claims {
 public:
  using names = std::vector<std::string>;
  enum class kind { free, taken, state };
  struct answer {
    kind is;
    std::size_t owner;
    std::string name;  // the one that is not free
    bool of_state;     // and whether a piece of state would have it
  };

  bool contains(const std::string& name) const { return uses_.contains(name); }
  // Whether a matrix with state of these names, or, without them, a view, may be called so.
  [[gnu::cold]] answer look_up(const std::string& name, const names* states) const {
    if (const auto at = uses_.find(name); at != uses_.end()) return {kind::taken, at->second.owner, name, false};
    if (const auto dot = name.rfind('.'); dot != std::string::npos)
      if (const auto of = uses_.find(name.substr(0, dot)); of != uses_.end() && of->second.states)
        if (std::find(of->second.states->begin(), of->second.states->end(), std::string_view(name).substr(dot + 1)) !=
            of->second.states->end())
          return {kind::state, of->second.owner, name, false};
    if (states)
      for (const std::string& state : *states)
        if (const auto at = uses_.find(name + '.' + state); at != uses_.end())
          return {kind::taken, at->second.owner, at->first, true};
    return {kind::free, 0, {}, false};
  }
  struct use {
    std::size_t owner;
    const names* states;
    std::size_t place;  // among the matrices of a view
  };
  // `states` must live as long as the claim.
  void take(const std::string& name, std::size_t owner, const names* states, std::size_t place = 0) {
    uses_.emplace(name, use{owner, states, place});
  }
  const use* find(const std::string& name) const {
    const auto at = uses_.find(name);
    return at == uses_.end() ? nullptr : &at->second;
  }
  void give_back(const std::string& name) { uses_.erase(name); }

 private:
  std::unordered_map<std::string, use> uses_;
};

}  // namespace MATOPT_NAMESPACE::detail
