// npy_array: an array of a NumPy .npy file, whose matrices are views, and save_npy, which writes a view as such a file.
//
//   const npy_array w = npy_array::load("w.npy");     np.save("w.npy", w) wrote it
//   view<const float> v = w.as<float>();              into the array's own memory: `w` has to outlive it
//   save_npy("out.npy", as_const(v));                 np.load reads it
//
// Element types: float16 ('f2'), float32 ('f4') and float64 ('f8') in either byte order. Dimensions: () is 1 x 1, (n)
// is n x 1, (m, n) is m x n, rows = fan-out; (count, m, n) a stack of count matrices. Arrays in C and in Fortran order
// are both read as they lie; views without a row stride are written in Fortran order, all others in C order. Versions
// 1, 2 and 3 of the header are read; version 1 is written. The format: numpy.lib.format.
//
// Errors: bad_file, naming the file and what is wrong with it, and for as<T>() of another type a bad_value. Arrays of
// other types (bfloat16 has none in NumPy), of records or of objects, and what stands behind the array are refused.
// Memory is bounded by a multiple of the file's size. A file is replaced as a whole or not at all (io/atomic_file.hpp).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/extent.hpp"
#include "core/types.hpp"
#include "core/view.hpp"
#include "io/atomic_file.hpp"
#include "io/npy_header.hpp"
#include "io/regular_file.hpp"

namespace MATOPT_NAMESPACE {

class npy_array {
 public:
  static npy_array load(const std::string& path) {
    const regular_file in(path);
    const auto refuse = [&](const std::string& why) { return bad_file("cannot read \"" + path + "\": " + why); };
    const detail::npy_place place = detail::npy_place::of(in, refuse);
    std::string text(place.length, '\0');
    in.read(place.first, text.data(), text.size());
    const detail::npy_header header = detail::npy_header_reader(text, refuse).header();

    npy_array a;
    a.shape_ = header.shape, a.type_ = header.type, a.fortran_order_ = header.fortran_order;
    const std::uint64_t begin = place.first + place.length, rest = in.size() - begin;
    const auto bytes =
        static_cast<std::uint64_t>(detail::product(header.count(), static_cast<index_t>(size_of(a.type_))));
    if (bytes != rest)
      throw refuse("its array has " + std::to_string(bytes) + " bytes, and " + std::to_string(rest) +
                   " stand behind the header" + (rest < bytes ? "; it is cut off" : ""));
    a.data_.resize(bytes);
    in.read(begin, a.data_.data(), a.data_.size());
    if (header.swapped)
      for (std::size_t i = 0; i < a.data_.size(); i += size_of(a.type_))
        std::reverse(a.data_.begin() + static_cast<std::ptrdiff_t>(i),
                     a.data_.begin() + static_cast<std::ptrdiff_t>(i + size_of(a.type_)));
    return a;
  }

  element_type type() const { return type_; }
  const std::vector<index_t>& shape() const { return shape_; }
  bool fortran_order() const { return fortran_order_; }

  // T is float16, float or double, as type() says.
  template <class T>
  view<T> as() {
    require<T>();
    return matrices(reinterpret_cast<T*>(data_.data()));
  }
  template <class T>
  view<const T> as() const {
    require<T>();
    return matrices(reinterpret_cast<const T*>(data_.data()));
  }

 private:
  template <class T>
  void require() const {
    if (element_type_of<T>() != type_)
      throw bad_value("element type of an .npy array", std::string(name_of(type_)),
                      std::string(name_of(element_type_of<T>())));
  }
  template <class T>
  view<T> matrices(T* data) const {
    const std::size_t n = shape_.size();
    const index_t rows = n == 0 ? 1 : shape_[n == 3 ? 1 : 0], cols = n < 2 ? 1 : shape_[n - 1],
                  batch = n == 3 ? shape_[0] : 1;
    if (!fortran_order_) return row_major(data, rows, cols, batch);
    return {data, rows, cols, batch, detail::product(batch, rows), batch, n == 3 ? 1 : detail::product(rows, cols)};
  }

  std::vector<std::byte> data_;  // as the file has them, in the byte order of this machine
  std::vector<index_t> shape_;
  element_type type_ = element_type::f32;
  bool fortran_order_ = false;
};

// The matrix, or the stack of matrices, of a view in memory of the host: shape (m, n), or (count, m, n) for a stack.
template <class T>
void save_npy(const std::string& path, const view<const T>& v) {
  static_assert(!std::is_same_v<T, bfloat16>, "matopt: NumPy has no bfloat16; convert to float first");
  const bool stack = v.batch != 1, fortran = !stack && v.row_stride == 1 && v.col_stride != 1;
  const std::string header = detail::npy_header_text(element_type_of<T>(), fortran, stack, v.batch, v.rows, v.cols);
  atomic_file out(path);
  out.write(header.data(), header.size());
  if (v.rows == 0 || v.cols == 0 || v.batch == 0) return out.commit();  // its other sides may be of any length
  std::vector<T> line(static_cast<std::size_t>(fortran ? v.rows : v.cols));
  const view<const T> lines = fortran ? v.t() : v;
  for (index_t b = 0; b < lines.batch; ++b)
    for (index_t i = 0; i < lines.rows; ++i) {
      for (index_t j = 0; j < lines.cols; ++j) line[static_cast<std::size_t>(j)] = lines(i, j, b);
      if constexpr (std::endian::native != std::endian::little)
        for (T& x : line) std::reverse(reinterpret_cast<std::byte*>(&x), reinterpret_cast<std::byte*>(&x + 1));
      out.write(line.data(), line.size() * sizeof(T));
    }
  out.commit();
}
template <class T>
void save_npy(const std::string& path, const view<T>& v) requires(!std::is_const_v<T>) {
  save_npy(path, as_const(v));
}

}  // namespace MATOPT_NAMESPACE
