// The state of a parameter as tensors by name, and its master as state of matopt's.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <map>
#include <string>

#include "../../core/state_tensor.hpp"
#include "parameter.hpp"

namespace MATOPT_NAMESPACE::detail {

using torch_state = std::map<std::string, at::Tensor>;

// Before 2.1 libtorch has no type for these codes; they are bytes there.
template <class Type = at::ScalarType>
constexpr at::ScalarType float8_type() {
  if constexpr (requires { Type::Float8_e4m3fn; })
    return Type::Float8_e4m3fn;
  else
    return at::kByte;
}

inline at::ScalarType scalar_type_of(element_type t) {
  return t == element_type::f64    ? at::kDouble
         : t == element_type::f32  ? at::kFloat
         : t == element_type::bf16 ? at::kBFloat16
         : t == element_type::f16  ? at::kHalf
         : t == element_type::i8   ? at::kChar
         : t == element_type::u8   ? at::kByte
                                   : float8_type();
}

inline constexpr const char* master_name = "master";

inline state_tensor master_of(const torch_parameter& p) {
  const torch_matrix m = p.weight_matrix();
  const auto type = p.master.scalar_type() == at::kDouble ? element_type::f64 : element_type::f32;
  return {p.name + '.' + master_name, type, p.master.data_ptr(), m.batch * m.rows, m.cols, m.cols, 1};
}
inline bool is_master(const torch_parameter& p, const state_tensor& t) {
  return p.master.defined() && t.data == p.master.data_ptr();
}
inline void read_master(const torch_parameter& p, const state_tensor& t, void* host) {
  at::from_blob(host, p.master.sizes(), at::TensorOptions().dtype(scalar_type_of(t.type))).copy_(p.master);
}
inline void write_master(torch_parameter& p, const state_tensor& t, const void* host) {
  p.master.copy_(
      at::from_blob(const_cast<void*>(host), p.master.sizes(), at::TensorOptions().dtype(scalar_type_of(t.type))));
}

// "momentum" of "layer.weight.momentum"; "2.momentum" if it is of the third matrix of a stack.
inline std::string state_name(const torch_parameter& p, const state_tensor& t) {
  return t.name.substr(p.name.size() + 1);
}
// What was saved for t: on the CPU, of its type, without gaps. It is taken out of `saved`.
inline at::Tensor take_saved(torch_state& saved, const torch_parameter& p, const state_tensor& t) {
  const std::string name = state_name(p, t), what = "state \"" + name + "\" of \"" + p.name + '"';
  const auto found = saved.find(name);
  if (found == saved.end()) throw bad_value(what, "missing", "given, as this rule keeps it");
  const at::Tensor from = found->second;
  saved.erase(found);
  const std::string legal = std::to_string(t.rows) + "x" + std::to_string(t.cols) +
                            (holds_codes(t.type) ? " codes of type " + std::string(name_of(t.type)) : " numbers");
  if (!from.defined()) throw bad_value(what, "undefined", legal);
  if (from.layout() != at::kStrided) throw bad_value(what, "sparse", legal);
  // Codes are no numbers that could be converted.
  if (holds_codes(t.type) ? from.scalar_type() != scalar_type_of(t.type)
                          : !at::isFloatingType(from.scalar_type()) || from.element_size() == 1)
    throw bad_value(what, std::string("of type ") + at::toString(from.scalar_type()), legal);
  if (from.numel() != t.rows * t.cols) throw bad_value(what, "of shape " + text(from.sizes()), legal);
  return from.detach().to(at::kCPU, scalar_type_of(t.type)).contiguous();
}

}  // namespace MATOPT_NAMESPACE::detail
