// claims: which names and which memory are taken, so that no two parameters of an optimizer share either.
//
//   names    of parameters, of the matrices that they are split into, and of all their state in a checkpoint
//   memory   of weights, and of gradients, as footprints of whole views
//
// Everything costs a logarithm of what is there. Only views whose bytes interleave are compared with each other.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/overlap.hpp"

namespace matopt::detail {

// Footprints, and whose they are.
class memory_claims {
 public:
  // The owner of memory that meets f, the first of them if there are several; null if it is free.
  const std::string* owner_of(const footprint& f) const {
    const claim* owner = nullptr;
    if (f.empty()) return nullptr;
    for (auto at = first_near(f); at != near_.end() && at->first < f.end(); ++at)
      for (const claim& c : at->second.claims)
        if ((!owner || c.order < owner->order) && overlap(c.bytes, f)) owner = &c;
    return owner ? &owner->owner : nullptr;
  }
  void add(const footprint& f, const std::string& owner) {
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
  void remove(const footprint& f, const std::string& owner) {
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
    std::string owner;
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

struct claims {
  struct name_use {
    std::string owner;  // the name that the parameter was added with
    bool state;         // a tensor of its state, not the parameter or a part of it
  };
  std::unordered_map<std::string, name_use> names;
  memory_claims weights, gradients;

  static std::string text(const std::string& name, const name_use& use) {
    if (use.state) return "state of \"" + use.owner + '"';
    return use.owner == name ? "taken" : "a part of \"" + use.owner + '"';
  }
  // Takes all of these names, or none and throws.
  void take(const std::vector<std::pair<std::string, name_use>>& fresh) {
    for (auto at = fresh.begin(); at != fresh.end(); ++at) {
      const auto [there, is_new] = names.insert(*at);
      if (is_new) continue;
      const auto& [name, use] = *at;
      const std::string value = '"' + (use.state ? use.owner + "\", with state \"" + name : name) + '"';
      const std::string legal = "a name not used before: \"" + name + "\" is " + text(name, there->second);
      for (auto back = fresh.begin(); back != at; ++back) names.erase(back->first);
      throw bad_value("parameter name", value, legal);
    }
  }
  void give_back(const std::vector<std::pair<std::string, name_use>>& taken) {
    for (const auto& [name, unused] : taken) names.erase(name);
  }
};

}  // namespace matopt::detail
