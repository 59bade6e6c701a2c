// The state of a plan, tensor by tensor: for checkpoints, and for the plan that follows it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <compare>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../core/state_tensor.hpp"
#include "step_plan.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
// Matrix number b of a piece of state.
inline state_tensor tensor_of(const state_entry& e, std::size_t b, std::string name) {
  return {std::move(name),
          e.type,
          static_cast<std::byte*>(e.data) + b * static_cast<std::size_t>(e.batch_stride) * size_of(e.type),
          e.rows,
          e.cols,
          e.row_stride,
          e.col_stride};
}
}  // namespace detail

// All tensors of state, by name.
template <class Backend, class Types>
std::vector<state_tensor> tensors_of(const step_plan<Backend, Types>& p) {
  std::vector<state_tensor> out;
  for (const auto& k : p.buckets)
    for (const auto& entry : k.entries)
      for (std::size_t b = 0; b < k.members.size(); ++b)
        out.push_back(detail::tensor_of(entry, b, k.members[b].name + "." + entry.name));
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

// One tensor of state to or from host memory, dense and row-major, bit for bit. They wait.
template <class Backend>
void read_state(Backend& backend, const state_tensor& t, void* host) {
  const std::size_t bytes = bytes_of(t);
  if (bytes == 0) return;
  const auto stored = std::make_unique<std::byte[]>(bytes);
  backend.download(stored.get(), t.data, bytes);
  for_each_element(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
    std::memcpy(static_cast<std::byte*>(host) + dense, stored.get() + at, size);
  });
}
template <class Backend>
void write_state(Backend& backend, const state_tensor& t, const void* host) {
  const std::size_t bytes = bytes_of(t);
  if (bytes == 0) return;
  const auto stored = std::make_unique<std::byte[]>(bytes);
  for_each_element(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
    std::memcpy(stored.get() + at, static_cast<const std::byte*>(host) + dense, size);
  });
  backend.upload(t.data, stored.get(), bytes);
}

// What parameters had in one plan they have in the next one, as far as that keeps state of the same name and shape.
template <class Backend, class Types>
[[gnu::cold]] void carry_state(Backend& backend, const step_plan<Backend, Types>& from,
                               const step_plan<Backend, Types>& to) {
  struct key {
    std::size_t view;
    index_t matrix, first_row;
    std::string state;
    auto operator<=>(const key&) const = default;
  };
  const auto each = [](const step_plan<Backend, Types>& p, auto f) {
    for (const auto& k : p.buckets)
      for (const auto& entry : k.entries)
        for (std::size_t b = 0; b < k.members.size(); ++b) {
          const auto& m = k.members[b];
          f(key{m.view_number, m.matrix, m.first_row, entry.name}, detail::tensor_of(entry, b, entry.name));
        }
  };
  std::map<key, state_tensor> was;
  each(from, [&](const key& k, const state_tensor& t) { was.emplace(k, t); });
  std::vector<std::byte> dense;
  each(to, [&](const key& k, const state_tensor& t) {
    const auto old = was.find(k);
    if (old == was.end()) return;
    const state_tensor& o = old->second;
    if (o.type != t.type || o.rows != t.rows || o.cols != t.cols) return;
    dense.resize(static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type));
    read_state(backend, o, dense.data());
    write_state(backend, t, dense.data());
  });
}

}  // namespace MATOPT_NAMESPACE
