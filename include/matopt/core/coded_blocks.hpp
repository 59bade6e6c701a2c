// Blocks of a matrix in host memory to codes of 8 bits and back: block by block, so that a caller may deal them out to
// threads; and a whole matrix of numbers as what a file holds of it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "block_codes.hpp"
#include "view.hpp"

namespace MATOPT_NAMESPACE::detail {

// f(row, first column, count) for the pieces of rows that a block is made of.
template <class F>
void each_piece(index_t rows, index_t cols, const block_format& format, index_t block, F f) {
  index_t at = block * format.block;
  const index_t end = std::min(rows * cols, format.block > rows * cols - at ? rows * cols : at + format.block);
  while (at < end) {
    const index_t i = at / cols, j = at % cols, count = std::min(cols - j, end - at);
    f(i, j, count);
    at += count;
  }
}

template <class T>
void quantize_block(const block_format& format, index_t block, const view<const T>& x, const view<std::uint8_t>& codes,
                    const view<float>& scales, index_t b) {
  using A = typename arithmetic<T>::type;
  A largest(0);
  each_piece(x.rows, x.cols, format, block, [&](index_t i, index_t j, index_t count) {
    const T* const from = &x(i, j, b);
    for (index_t k = 0; k < count; ++k) {
      const A size = math::abs(static_cast<A>(from[k * x.col_stride]));
      largest = size > largest ? size : largest;
    }
  });
  const float scale = scale_of(largest);
  scales(0, block, b) = scale;
  with_map(format.map, [&](auto of_map) {
    each_piece(x.rows, x.cols, format, block, [&](index_t i, index_t j, index_t count) {
      const T* const from = &x(i, j, b);
      std::uint8_t* const to = &codes(i, j, b);
      const auto s = static_cast<A>(scale);
      for (index_t k = 0; k < count; ++k)
        to[k * codes.col_stride] =
            of_map.of(share_of(static_cast<A>(from[k * x.col_stride]), s, A(of_map.top)), dynamic_values.at);
    });
  });
}

template <class T>
void dequantize_block(const block_format& format, index_t block, const view<const std::uint8_t>& codes,
                      const view<const float>& scales, const view<T>& x, index_t b) {
  using A = typename arithmetic<T>::type;
  with_map(format.map, [&](auto of_map) {
    each_piece(x.rows, x.cols, format, block, [&](index_t i, index_t j, index_t count) {
      const std::uint8_t* const from = &codes(i, j, b);
      T* const to = &x(i, j, b);
      const auto s = static_cast<A>(scales(0, block, b));
      for (index_t k = 0; k < count; ++k)
        to[k * x.col_stride] =
            static_cast<T>(of_map.template value<A>(from[k * codes.col_stride], dynamic_values.at) * s);
    });
  });
}

// Dense and row-major, as in a file.
struct coded_values {
  std::vector<std::byte> codes, scales;
};
inline coded_values encode_values(const block_format& format, const std::vector<double>& values) {
  const auto n = static_cast<index_t>(values.size()), blocks = format.blocks(n);
  coded_values out{std::vector<std::byte>(values.size()), std::vector<std::byte>(static_cast<std::size_t>(blocks) * 4)};
  std::vector<float> scales(static_cast<std::size_t>(blocks));
  const auto codes = row_major(reinterpret_cast<std::uint8_t*>(out.codes.data()), 1, n);
  for (index_t block = 0; block < blocks; ++block)
    quantize_block(format, block, row_major(values.data(), 1, n), codes, row_major(scales.data(), 1, blocks), 0);
  if (blocks > 0) std::memcpy(out.scales.data(), scales.data(), out.scales.size());
  return out;
}
inline std::vector<double> decode_values(const block_format& format, const std::vector<std::byte>& codes,
                                         const std::vector<std::byte>& scales) {
  const auto n = static_cast<index_t>(codes.size()), blocks = format.blocks(n);
  std::vector<double> values(codes.size());
  std::vector<float> by(static_cast<std::size_t>(blocks));
  if (blocks > 0) std::memcpy(by.data(), scales.data(), by.size() * sizeof(float));
  const auto from = row_major(reinterpret_cast<const std::uint8_t*>(codes.data()), 1, n);
  for (index_t block = 0; block < blocks; ++block)
    dequantize_block(format, block, from, row_major(static_cast<const float*>(by.data()), 1, blocks),
                     row_major(values.data(), 1, n), 0);
  return values;
}

// The elements of a block, if `name` is that of the scales of the state called `of`; otherwise 0.
inline index_t block_of_scales(std::string_view name, std::string_view of) {
  if (!name.starts_with(of) || !name.substr(of.size()).starts_with(absmax_infix)) return 0;
  const std::string_view number = name.substr(of.size() + absmax_infix.size());
  index_t block = 0;
  const auto end = std::from_chars(number.data(), number.data() + number.size(), block).ptr;
  return end == number.data() + number.size() && block > 0 ? block : 0;
}

}  // namespace MATOPT_NAMESPACE::detail
