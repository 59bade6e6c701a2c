// quantize and dequantize: matrices as codes of 8 bits with one scale per block, and back.
//
//   block_format f{.map = code_map::linear, .block = 256};
//   std::vector<std::uint8_t> codes(64 * 128);                  one byte per element
//   std::vector<float> scales(f.blocks(64 * 128));              one float per block
//   quantize(cpu, row_major(x, 64, 128), row_major(codes.data(), 64, 128), row_major(scales.data(), 1, 32), f);
//   dequantize(cpu, row_major(codes.data(), 64, 128), row_major(scales.data(), 1, 32), row_major(x, 64, 128), f);
//
// core/block_codes.hpp says what the codes mean and how far they are off. Blocks run through a matrix row after row,
// whatever the strides of x and of the codes; the last one may be shorter. All matrices of a batch are done. Elements of
// x are float, double or of 16 bits; codes and scales must be in the backend's memory. On a GPU the verbs are ordered on
// the backend's stream and have not run when the call returns; nothing is allocated.
//
// Errors: bad_value for a block below 1, and for views that do not fit: codes are as many as x has elements, scales 1 x
// blocks, each with x's batch.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <utility>

#include "core/backend.hpp"
#include "core/check_view.hpp"
#include "core/view_of.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class X, class Codes, class Scales>
void check_coded(const block_format& format, const X& x, const Codes& codes, const Scales& scales, bool read_x) {
  if (format.block < 1) throw bad_value("block", std::to_string(format.block), ">= 1");
  check_view(std::string("matrix"), x, read_x);
  check_view(std::string("codes"), codes, !read_x);
  check_view(std::string("scales"), scales, !read_x);
  const auto shape = [](index_t rows, index_t cols, index_t batch) {
    return std::to_string(rows) + "x" + std::to_string(cols) + ", batch " + std::to_string(batch);
  };
  const auto check = [&](const char* what, const auto& v, index_t rows, index_t cols) {
    if (v.rows != rows || v.cols != cols || v.batch != x.batch)
      throw bad_value(std::string("shape of the ") + what, shape(v.rows, v.cols, v.batch), shape(rows, cols, x.batch));
  };
  check("codes", codes, x.rows, x.cols);
  check("scales", scales, 1, format.blocks(x.rows * x.cols));
}
}  // namespace detail

template <class Backend, viewable X>
requires quantizing_backend<Backend, float>
void quantize(Backend& backend, X&& x, viewed<std::uint8_t> codes, viewed<float> scales,
              const block_format& format = {}) {
  const auto from = as_const(view_of(std::forward<X>(x)));
  detail::check_coded(format, from, view<std::uint8_t>(codes), view<float>(scales), true);
  backend.quantize(nullptr, format, from, codes, scales);
}

template <class Backend, viewable X>
requires quantizing_backend<Backend, float>
void dequantize(Backend& backend, viewed<const std::uint8_t> codes, viewed<const float> scales, X&& x,
                const block_format& format = {}) {
  const auto to = view_of(std::forward<X>(x));
  detail::check_coded(format, to, view<const std::uint8_t>(codes), view<const float>(scales), false);
  backend.dequantize(nullptr, format, codes, scales, to);
}

}  // namespace MATOPT_NAMESPACE
