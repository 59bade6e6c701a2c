// Characters of a text in UTF-8 that may hold other bytes as well.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace small_gpt {

// Length of the UTF-8 sequence that starts at text[at]; 1 for a byte that starts none, which then is a symbol of its
// own. Overlong forms, surrogates and values above U+10FFFF are not UTF-8.
inline std::size_t character_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[at + i])); };
  const unsigned lead = byte(0);
  const std::size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 1;
  if (at + length > text.size()) return 1;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0U) != 0x80U) return 1;
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) >= 0xa0;
  const bool too_large = lead == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 1 : length;
}

// The code point of the character of that length at text[at]; 0xfffd, which is no letter, for a byte that begins none.
inline std::uint32_t character_at(std::string_view text, std::size_t at, std::size_t length) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (length == 1) return lead < 0x80 ? lead : 0xfffd;
  std::uint32_t c = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) c = c << 6U | (static_cast<unsigned char>(text[at + i]) & 0x3fU);
  return c;
}

}  // namespace small_gpt
