// The header of an .npy file (npy.hpp): where it lies, and what the dictionary in it says.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../core/extent.hpp"
#include "../core/types.hpp"
#include "regular_file.hpp"

namespace MATOPT_NAMESPACE::detail {

// "\x93NUMPY", the version in two bytes, and the header's length in two bytes (version 1) or four, little-endian.
struct npy_place {
  static constexpr std::uint64_t largest = 1 << 20;  // NumPy writes some hundred bytes

  std::uint64_t first, length;

  template <class Refuse>
  static npy_place of(const regular_file& in, const Refuse& refuse) {
    unsigned char begin[12] = {};
    in.read(0, begin, static_cast<std::size_t>(in.size() < 12 ? in.size() : 12));
    const std::string_view magic = "\x93NUMPY";
    for (std::size_t i = 0; i < magic.size(); ++i)
      if (in.size() < 10 || begin[i] != static_cast<unsigned char>(magic[i])) throw refuse("it is no .npy file");
    const unsigned version = begin[6];
    if (version < 1 || version > 3 || begin[7] != 0)
      throw refuse("its format version is " + std::to_string(version) + "." + std::to_string(begin[7]) +
                   "; legal: 1.0, 2.0 and 3.0");
    const std::uint64_t first = version == 1 ? 10 : 12;
    if (in.size() < first) throw refuse("it is cut off in its header");
    std::uint64_t length = 0;
    for (std::uint64_t i = first - 1; i >= 8; --i) length = length << 8U | begin[i];
    if (length > largest)
      throw refuse("a header of " + std::to_string(length) + " bytes; legal: up to " + std::to_string(largest));
    if (length > in.size() - first) throw refuse("it is cut off in its header");
    return {first, length};
  }
};

struct npy_header {
  element_type type = element_type::f32;
  bool swapped = false;  // of the other byte order than this machine's
  bool fortran_order = false;
  std::vector<index_t> shape;

  index_t count() const {
    index_t n = 1;
    bool none = false;
    for (const index_t d : shape) none = none || d == 0, n = product(n, d);
    return none ? 0 : n;
  }
};

// Reads the dictionary: a Python literal with the keys 'descr', 'fortran_order' and 'shape', each once, in any order.
template <class Refuse>
class npy_header_reader {
 public:
  npy_header_reader(std::string_view text, const Refuse& refuse) : rest_(text), refuse_(refuse) {}

  npy_header header() {
    npy_header h;
    bool descr = false, order = false, shape = false;
    take('{');
    while (!next_is('}')) {
      const std::string key = text();
      take(':');
      if (key == "descr" && !descr)
        descr = true, read_type(h);
      else if (key == "fortran_order" && !order)
        order = true, h.fortran_order = boolean();
      else if (key == "shape" && !shape)
        shape = true, h.shape = tuple();
      else
        throw refuse_("its header has the key \"" + printable(key) +
                      "\", or has it twice; legal: descr, fortran_order and shape, once each");
      if (!next_is('}')) take(',');
    }
    take('}');
    skip_space();
    if (!rest_.empty()) throw refuse_("its header goes on behind the dictionary");
    if (!descr || !order || !shape)
      throw refuse_(std::string("its header lacks ") + (!descr ? "descr" : !order ? "fortran_order" : "shape"));
    if (h.shape.size() > 3)
      throw refuse_(
          "its array has " + std::to_string(h.shape.size()) +
          " dimensions; legal: up to 3, (n), (m, n) or (count, m, n); flatten a convolution to (out, in kh kw)");
    return h;
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' ? c : '?';
    return out;
  }
  void skip_space() {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
  }
  bool next_is(char c) {
    skip_space();
    return !rest_.empty() && rest_.front() == c;
  }
  void take(char c) {
    if (!next_is(c))
      throw refuse_(std::string("its header is malformed: '") + c + "' is missing before \"" + printable(rest_) + '"');
    rest_.remove_prefix(1);
  }
  std::string text() {
    const char quote = next_is('"') ? '"' : '\'';
    take(quote);
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) throw refuse_("its header is malformed: a text does not end");
    const std::string out(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return out;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"})
      if (rest_.substr(0, word.size()) == word) {
        rest_.remove_prefix(word.size());
        return word == "True";
      }
    throw refuse_("its fortran_order is neither True nor False");
  }
  void read_type(npy_header& h) {
    if (!next_is('\'') && !next_is('"')) throw refuse_("its array is one of records; legal: f2, f4 or f8");
    const std::string name = text();
    const std::string_view kind = std::string_view(name).substr(name.empty() ? 0 : 1);
    const bool known = kind == "f2" || kind == "f4" || kind == "f8";
    if (!known || (name[0] != '<' && name[0] != '>' && name[0] != '='))
      throw refuse_("its elements are \"" + printable(name) + "\"; legal: f2, f4 and f8, behind < or >");
    h.type = kind == "f2" ? element_type::f16 : kind == "f4" ? element_type::f32 : element_type::f64;
    const bool little = std::endian::native == std::endian::little;
    h.swapped = name[0] == (little ? '>' : '<');
  }
  std::vector<index_t> tuple() {
    std::vector<index_t> out;
    take('(');
    while (!next_is(')')) {
      skip_space();
      index_t n = 0;
      bool any = false;
      for (; !rest_.empty() && is_digit(rest_.front()); rest_.remove_prefix(1), any = true)
        n = sum(product(n, 10), rest_.front() - '0');
      if (!any || n == largest_index) throw refuse_("its shape is malformed, or impossible");
      if (!rest_.empty() && rest_.front() == 'L') rest_.remove_prefix(1);  // Python 2 wrote long numbers so
      out.push_back(n);
      if (out.size() > 64) throw refuse_("its shape has more dimensions than NumPy knows");
      if (!next_is(')')) take(',');
    }
    take(')');
    return out;
  }

  std::string_view rest_;
  const Refuse& refuse_;
};

// What stands before the data of a file: version 1, padded with spaces to a multiple of 64 bytes.
inline std::string npy_header_text(element_type type, bool fortran, bool stack, index_t batch, index_t rows,
                                   index_t cols) {
  std::string text = std::string("{'descr': '<f") + std::to_string(size_of(type)) +
                     "', 'fortran_order': " + (fortran ? "True" : "False") + ", 'shape': (" +
                     (stack ? std::to_string(batch) + ", " : "") + std::to_string(rows) + ", " + std::to_string(cols) +
                     "), }";
  text.resize((text.size() + 11 + 63) / 64 * 64 - 11, ' ');
  text += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(text.size() & 0xffU);
  out += static_cast<char>(text.size() >> 8U);
  return out + text;
}

}  // namespace MATOPT_NAMESPACE::detail
