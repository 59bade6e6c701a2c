// npy_array::load: what it takes, it writes and reads again as the same numbers.
#include <cstring>
#include <matopt/npy.hpp>

#include "target.hpp"

FUZZ(npy) {
  fuzz::refuse_or([&] {
    const std::string path = fuzz::file_with(data);
    const matopt::npy_array first = matopt::npy_array::load(path);
    const auto round_trip = [&]<class T>(T) {
      const matopt::view<const T> v = first.as<T>();
      matopt::save_npy(path, v);
      const matopt::npy_array again = matopt::npy_array::load(path);
      const matopt::view<const T> w = again.as<T>();
      fuzz::require(v.rows == w.rows && v.cols == w.cols && v.batch == w.batch, "another shape came back");
      if (v.rows == 0 || v.cols == 0) return;  // nothing to compare, and the other sides may be of any length
      for (matopt::index_t b = 0; b < v.batch; ++b)
        for (matopt::index_t i = 0; i < v.rows; ++i)
          for (matopt::index_t j = 0; j < v.cols; ++j)
            fuzz::require(std::memcmp(&v(i, j, b), &w(i, j, b), sizeof(T)) == 0, "another number came back");
    };
    if (first.type() == matopt::element_type::f64) round_trip(0.0);
    if (first.type() == matopt::element_type::f32) round_trip(0.0F);
    if (first.type() == matopt::element_type::f16) round_trip(matopt::float16{});
  });
}
