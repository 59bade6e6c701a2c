// A matrix in 4 or 8 bits an element: each row is stored as whole numbers, q = round(w / scale), with a scale of its own,
// scale = max|row| / 127 in 8 bits and max|row| / 7 in 4, so that q lies in [-127, 127] or [-7, 7] and 0 stays 0.
//
// A file holds it as "NAME.q", and the scales as "NAME.scale" (F32, rows x 1):
//   8 bits: I8, rows x cols;
//   4 bits: U8, rows x ceil(cols / 2), q + 8 in four bits, the column of even index in the lower half of the byte. Where
//           the number of columns is odd, the last upper half of a row holds 8.
// A row with an element that is not finite has a scale that is not finite, and comes back as one of NaN.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <matopt/tensor_file.hpp>
#include <string>
#include <vector>

namespace small_gpt {

inline void store_quantized(matopt::tensor_file& file, const std::string& name, const float* values,
                            matopt::index_t rows, matopt::index_t cols, int bits) {
  const float largest = bits == 8 ? 127.0F : 7.0F;
  const matopt::index_t stored = bits == 8 ? cols : (cols + 1) / 2;
  auto& q = file.tensors[name + ".q"];
  auto& scale = file.tensors[name + ".scale"];
  q.type = bits == 8 ? matopt::element_type::i8 : matopt::element_type::u8;
  q.shape = {rows, stored};
  q.data.assign(static_cast<std::size_t>(rows * stored), bits == 8 ? std::byte{0} : std::byte{0x88});
  std::vector<float> scales(static_cast<std::size_t>(rows));
  for (matopt::index_t i = 0; i < rows; ++i) {
    const float* row = values + i * cols;
    float& s = scales[static_cast<std::size_t>(i)];
    s = 0;
    for (matopt::index_t j = 0; j < cols; ++j)
      s = std::max(s, std::isfinite(row[j]) ? std::abs(row[j]) : std::numeric_limits<float>::infinity());
    s /= largest;
    if (!(s > 0) || !std::isfinite(s)) continue;
    for (matopt::index_t j = 0; j < cols; ++j) {
      const int n = static_cast<int>(std::lrint(std::clamp(row[j] / s, -largest, largest)));
      if (bits == 8) {
        q.data[static_cast<std::size_t>(i * stored + j)] = static_cast<std::byte>(static_cast<std::int8_t>(n));
      } else {
        std::byte& b = q.data[static_cast<std::size_t>(i * stored + j / 2)];
        const auto four = static_cast<std::byte>(n + 8);
        b = j % 2 == 0 ? (b & std::byte{0xF0}) | four : (b & std::byte{0x0F}) | (four << 4);
      }
    }
  }
  scale.type = matopt::element_type::f32, scale.shape = {rows, 1};
  scale.data.resize(scales.size() * sizeof(float));
  if (!scales.empty()) std::memcpy(scale.data.data(), scales.data(), scale.data.size());
}

// False if the file has no such matrix of that shape.
inline bool load_quantized(const matopt::tensor_file& file, const std::string& name, matopt::index_t rows,
                           matopt::index_t cols, float* values) {
  using shape = std::vector<matopt::index_t>;
  const auto q = file.tensors.find(name + ".q"), scale = file.tensors.find(name + ".scale");
  if (q == file.tensors.end() || scale == file.tensors.end()) return false;
  const bool eight = q->second.type == matopt::element_type::i8;
  if (!eight && q->second.type != matopt::element_type::u8) return false;
  const matopt::index_t stored = eight ? cols : (cols + 1) / 2;
  if (q->second.shape != shape{rows, stored} || scale->second.type != matopt::element_type::f32 ||
      scale->second.shape != shape{rows, 1})
    return false;
  for (matopt::index_t i = 0; i < rows; ++i) {
    float s;
    std::memcpy(&s, scale->second.data.data() + static_cast<std::size_t>(i) * sizeof s, sizeof s);
    for (matopt::index_t j = 0; j < cols; ++j) {
      const auto at = static_cast<std::size_t>(i * stored + (eight ? j : j / 2));
      const auto byte = std::to_integer<unsigned>(q->second.data[at]);
      const int n =
          eight ? static_cast<std::int8_t>(byte) : static_cast<int>(j % 2 == 0 ? byte & 0xFU : byte >> 4U) - 8;
      values[i * cols + j] = s * static_cast<float>(n);
    }
  }
  return true;
}

}  // namespace small_gpt
