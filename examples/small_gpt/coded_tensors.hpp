// Entropy-coded tensors of a checkpoint: whole numbers of 8 or 4 bits ("NAME.q" of quantized_rows.hpp) through
// range_coder.hpp. What is decoded is what was coded, byte for byte.
//
// A file holds it as "NAME.q.coded" (U8, one dimension) in the place of "NAME.q": a byte with the bits of a symbol (8:
// NAME.q is I8, 4: it is U8), its rows and its bytes per row, the CRC-32C of its bytes (32 bits each, little-endian),
// and the bytes of the range coder.
#pragma once
#include <cstddef>
#include <cstdint>
#include <matopt/io/crc32c.hpp>
#include <matopt/tensor_file.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "range_coder.hpp"

namespace small_gpt {

// Codes each tensor "NAME.q" that gets smaller.
inline void entropy_code(matopt::tensor_file& file) {
  constexpr std::size_t header_text = 32;  // what its name and checksum add to the header of the file
  std::vector<std::string> names;
  for (const auto& [name, t] : file.tensors)
    if (name.ends_with(".q") && t.shape.size() == 2 &&
        (t.type == matopt::element_type::i8 || t.type == matopt::element_type::u8))
      names.push_back(name);
  for (const std::string& name : names) {
    const auto& q = file.tensors.at(name);
    const unsigned bits = q.type == matopt::element_type::i8 ? 8 : 4;
    matopt::tensor_file::tensor coded{matopt::element_type::u8, {}, {static_cast<std::byte>(bits)}};
    for (const std::uint64_t n : {static_cast<std::uint64_t>(q.shape[0]), static_cast<std::uint64_t>(q.shape[1]),
                                  std::uint64_t{matopt::crc32c(q.data.data(), q.data.size())}})
      for (unsigned shift = 0; shift < 32; shift += 8) coded.data.push_back(static_cast<std::byte>(n >> shift & 0xFFU));
    const auto stream = range_encoded(q.data, bits);
    coded.data.insert(coded.data.end(), stream.begin(), stream.end());
    if (coded.data.size() + header_text >= q.data.size() || q.shape[0] >> 32 || q.shape[1] >> 32) continue;
    coded.shape = {static_cast<matopt::index_t>(coded.data.size())};
    file.tensors.erase(name);
    file.tensors[name + ".coded"] = std::move(coded);
  }
}

inline bool has_coded(const matopt::tensor_file& file) {
  for (const auto& [name, t] : file.tensors)
    if (name.ends_with(".q.coded")) return true;
  return false;
}

// Puts what was coded back into its place. Throws bad_file, naming the tensor.
inline void entropy_decode(matopt::tensor_file& file) {
  constexpr std::size_t head = 13;
  std::vector<std::string> names;
  for (const auto& [name, t] : file.tensors)
    if (name.ends_with(".q.coded")) names.push_back(name);
  for (const std::string& name : names) {
    const auto fail = [&](const std::string& why) {
      return matopt::bad_file("the coded tensor \"" + name + "\" cannot be read: " + why);
    };
    const auto& coded = file.tensors.at(name);
    const std::string plain = name.substr(0, name.rfind('.'));
    if (file.tensors.contains(plain)) throw fail("the file holds \"" + plain + "\" as well");
    if (coded.type != matopt::element_type::u8 || coded.shape.size() != 1) throw fail("it is not U8 in one dimension");
    if (coded.data.size() < head)
      throw fail("it is cut off: " + std::to_string(coded.data.size()) + " bytes; it begins with " +
                 std::to_string(head));
    const auto number = [&](std::size_t at) {
      std::uint32_t n = 0;
      for (std::size_t i = 4; i-- > 0;) n = n << 8U | std::to_integer<std::uint32_t>(coded.data[at + i]);
      return n;
    };
    const auto bits = std::to_integer<unsigned>(coded.data[0]);
    if (bits != 8 && bits != 4) throw fail("its symbols have " + std::to_string(bits) + " bits; legal: 8 or 4");
    const std::uint64_t rows = number(1), cols = number(5);
    matopt::tensor_file::tensor q{bits == 8 ? matopt::element_type::i8 : matopt::element_type::u8,
                                  {static_cast<matopt::index_t>(rows), static_cast<matopt::index_t>(cols)},
                                  {}};
    try {
      q.data = range_decoded(coded.data.data() + head, coded.data.size() - head, bits, rows * cols);
    } catch (const std::runtime_error& e) {
      throw fail(e.what());
    }
    if (matopt::crc32c(q.data.data(), q.data.size()) != number(9))
      throw fail("it is damaged: what comes out has another checksum than what went in");
    file.tensors.erase(name);
    file.tensors[plain] = std::move(q);
  }
}

}  // namespace small_gpt
