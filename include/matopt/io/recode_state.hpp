// State in codes of 8 bits (core/block_codes.hpp) as state in another format, for loading: from elements to codes, from
// codes to elements, or from one map or block to another.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/coded_blocks.hpp"
#include "../core/state_tensor.hpp"
#include "../tensor_file.hpp"
#include "convert_elements.hpp"

namespace MATOPT_NAMESPACE::detail {

struct recoded_state {
  struct change {
    std::string name, file, here;
  };
  tensor_file file;
  std::vector<change> changes;
};

// "I8 in blocks of 256"
inline std::string format_text(element_type type, index_t block) {
  return std::string(name_of(type)) + (holds_codes(type) ? " in blocks of " + std::to_string(block) : "");
}

// The file with its state in the formats that the tensors `here`, sorted by name, have, as far as names and shapes
// agree; nothing if no format differs. `prefix`: of the names of state in the file.
inline std::optional<recoded_state> recode_state(const std::vector<state_tensor>& here, const tensor_file& file,
                                                 const std::string& prefix) {
  std::optional<recoded_state> out;
  for (const state_tensor& t : here) {
    const std::string key = prefix + t.name;
    const auto saved = file.tensors.find(key);
    if (saved == file.tensors.end()) continue;
    const auto& [type, shape, data] = saved->second;
    if (!holds_codes(type) && !holds_codes(t.type)) continue;
    const auto count = static_cast<std::size_t>(t.rows * t.cols);
    if (shape != std::vector<index_t>{t.rows, t.cols} || data.size() != count * size_of(type)) continue;

    block_format theirs{code_map_of(type), 0}, ours{code_map_of(t.type), 0};
    std::string scales_key, scales_here;
    if (holds_codes(type))
      for (auto at = saved; at != file.tensors.end() && at->first.starts_with(key); ++at)
        if (const index_t block = block_of_scales(at->first, key); block > 0)
          theirs.block = block, scales_key = at->first;
    if (holds_codes(t.type))
      for (const state_tensor* other = &t; other != here.data() + here.size() && other->name.starts_with(t.name);
           ++other)
        if (const index_t block = block_of_scales(other->name, t.name); block > 0)
          ours.block = block, scales_here = other->name;
    if (type == t.type && theirs.block == ours.block) continue;
    if (holds_codes(type)) {
      if (theirs.block == 0) continue;  // codes without scales mean nothing
      const auto& scales = file.tensors.at(scales_key);
      if (scales.type != element_type::f32 ||
          scales.data.size() != static_cast<std::size_t>(theirs.blocks(t.rows * t.cols)) * sizeof(float))
        continue;
    }

    std::vector<double> values(count);
    if (holds_codes(type)) {
      values = decode_values(theirs, data, file.tensors.at(scales_key).data);
    } else {
      const auto doubles = convert_elements(data, type, element_type::f64).data;
      if (count > 0) std::memcpy(values.data(), doubles.data(), doubles.size());
    }
    if (!out) out.emplace(recoded_state{file, {}});
    auto& tensors = out->file.tensors;
    if (holds_codes(type)) tensors.erase(scales_key);
    if (holds_codes(t.type)) {
      coded_values coded = encode_values(ours, values);
      tensors[key] = {t.type, shape, std::move(coded.codes)};
      tensors[prefix + scales_here] = {element_type::f32, {1, ours.blocks(t.rows * t.cols)}, std::move(coded.scales)};
    } else {
      std::vector<std::byte> doubles(count * sizeof(double));
      if (count > 0) std::memcpy(doubles.data(), values.data(), doubles.size());
      converted_elements today = convert_elements(doubles, element_type::f64, t.type);
      if (today.out_of_range) {  // whoever compares the tensors says so
        tensors[key] = {element_type::f64, shape, std::move(doubles)};
        continue;
      }
      tensors[key] = {t.type, shape, std::move(today.data)};
    }
    out->changes.push_back({t.name, format_text(type, theirs.block), format_text(t.type, ours.block)});
  }
  return out;
}

}  // namespace MATOPT_NAMESPACE::detail
