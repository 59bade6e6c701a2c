// An adaptive binary range coder: bytes in fewer bytes, near their entropy, without a table of frequencies beside them.
//
// A symbol is 4 or 8 bits, coded from the highest one to the lowest. Each of its bits has a probability that depends on
// the bits of the symbol above it, estimated from the counts of zeros and ones there so far (Krichevsky and Trofimov,
// 1981): (zeros + 1/2) / (zeros + ones + 1). So the length comes within about (1/2) log2(n) bits per kind of symbol of
// the entropy of n symbols. The range of 32 bits is divided in these proportions (Martin, 1979), and its upper bytes
// are written as they become known.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace small_gpt {

// The bits of a symbol, and how often each was 0 or 1 so far.
class symbol_model {
 public:
  explicit symbol_model(unsigned bits) : bits_(bits), counts_(std::size_t{1} << bits) {}

  // `code_bit(p, bit)` codes one bit whose probability of being 0 is p / 65536, and returns it.
  template <class CodeBit>
  unsigned through(unsigned symbol, CodeBit code_bit) {
    unsigned node = 1;  // the bits so far below a leading 1
    for (unsigned i = bits_; i-- > 0;) {
      counts& c = counts_[node];
      const unsigned bit = code_bit(c.zero_of_65536(), symbol >> i & 1U);
      c.add(bit);
      node = node << 1U | bit;
    }
    return node - (1U << bits_);
  }

 private:
  struct counts {
    std::uint32_t zeros = 0, all = 0;
    // Never so near to 0 or 1 that a damaged stream could stand for more than some thousand times its length.
    std::uint32_t zero_of_65536() const {
      const std::uint32_t p = ((2 * zeros + 1) << 15U) / (all + 1);
      return p < 16 ? 16 : p > 65520 ? 65520 : p;
    }
    void add(unsigned bit) {
      zeros += 1 - bit;
      if (++all == 1U << 14U) zeros /= 2, all /= 2;
    }
  };
  unsigned bits_;
  std::vector<counts> counts_;
};

// Codes each byte as one symbol of 8 bits, or as two of 4, the lower one first.
inline std::vector<std::byte> range_encoded(const std::vector<std::byte>& bytes, unsigned symbol_bits) {
  std::vector<std::byte> out;
  std::uint64_t low = 0;
  std::uint32_t range = 0xFFFFFFFFU;
  const auto write_byte = [&] {
    if (low >> 32U)  // a carry into what is written already
      for (std::size_t i = out.size(); i-- > 0;)
        if (out[i] = static_cast<std::byte>(std::to_integer<unsigned>(out[i]) + 1); out[i] != std::byte{0}) break;
    out.push_back(static_cast<std::byte>(low >> 24U & 0xFFU));
    low = (low & 0xFFFFFFU) << 8U;
  };
  symbol_model model(symbol_bits);
  for (const std::byte b : bytes)
    for (unsigned shift = 0; shift < 8; shift += symbol_bits)
      model.through(std::to_integer<unsigned>(b) >> shift & ((1U << symbol_bits) - 1),
                    [&](std::uint32_t p, unsigned bit) {
                      const std::uint32_t zero = (range >> 16U) * p;
                      bit == 0 ? void(range = zero) : (low += zero, void(range -= zero));
                      for (; range < 1U << 24U; range <<= 8U) write_byte();
                      return bit;
                    });
  for (int i = 0; i < 4; ++i) write_byte();
  return out;
}

// `count` bytes from what range_encoded made of them. Throws std::runtime_error where the coded bytes are too few or
// too many; that others are damaged cannot be seen here.
inline std::vector<std::byte> range_decoded(const std::byte* coded, std::size_t size, unsigned symbol_bits,
                                            std::size_t count) {
  std::vector<std::byte> bytes;  // grows as it is read: `count` may be damaged, too
  std::size_t at = 0;
  std::uint32_t value = 0, range = 0xFFFFFFFFU;
  const auto read_byte = [&] {
    if (at == size)
      throw std::runtime_error("it is cut off: its " + std::to_string(size) + " bytes end after " +
                               std::to_string(bytes.size()) + " of " + std::to_string(count) + " elements");
    value = value << 8U | std::to_integer<std::uint32_t>(coded[at++]);
  };
  for (int i = 0; i < 4; ++i) read_byte();
  symbol_model model(symbol_bits);
  while (bytes.size() < count) {
    unsigned b = 0;
    for (unsigned shift = 0; shift < 8; shift += symbol_bits)
      b |= model.through(0, [&](std::uint32_t p, unsigned) {
        const std::uint32_t zero = (range >> 16U) * p;
        const unsigned bit = value >= zero;
        bit == 0 ? void(range = zero) : (value -= zero, void(range -= zero));
        for (; range < 1U << 24U; range <<= 8U) read_byte();
        return bit;
      }) << shift;
    bytes.push_back(static_cast<std::byte>(b));
  }
  if (at != size)
    throw std::runtime_error("it has " + std::to_string(size - at) + " bytes too many behind its " +
                             std::to_string(count) + " elements");
  return bytes;
}

}  // namespace small_gpt
