// How well a polar factor is approximated, in double on the CPU.
//
//   gauss    independent normal numbers
//   inverse  singular values 1/i, i = 1..m, between Haar-random directions
//   lowrank  eight singular values of one between Haar-random directions, and independent normal numbers of 0.01
//
//   polar_error = ||Y - U V^T||_F / sqrt(m)     smax = the largest singular value of Y
#pragma once
#include <array>
#include <vector>

namespace bench {

inline constexpr std::array spectra{"gauss", "inverse", "lowrank"};

// Matrices of rows x cols, rows <= cols, row-major, one for each spectrum, and their polar factors. Made once per
// shape.
struct spectrum_inputs {
  std::array<std::vector<double>, spectra.size()> input, polar;
};
const spectrum_inputs& inputs_of(int rows, int cols);

struct accuracy {
  double polar_error, smax;
};
accuracy compare(const std::vector<double>& y, const std::vector<double>& polar, int rows, int cols);

}  // namespace bench
