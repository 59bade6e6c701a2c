// gram_pivots: what the Cholesky factor R of P^T P, in double, says of the columns of P one after another, and whether
// it can be believed.
//
//   R_kk^2   what the columns before it leave of column k
//   v = R^-T c,  c_k = -+1, whichever makes v_k larger          how much R^-1 enlarges, nearly (LINPACK's estimate)
//
// P R^-1 is orthonormal but for eps |R^-1| of T; and rounding changes R_kk^2 by about eps |R^-1|^2 of double, |R^-1| of
// the columns before it. So as long as v is small, R itself tells a column that depends on those before it from one
// that does not, and no other column needs to be looked at. (Cline, Moler, Stewart, Wilkinson, SIAM J. Numer. Anal. 16,
// 1979.)
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>

#include "math.hpp"

namespace MATOPT_NAMESPACE::detail {

struct gram_pivots {
  double largest = 0;  // of v
  bool lost = false;   // R is of no use

  // 1 / R_kk, or 0 where column k becomes zero: where it keeps no more than `must` of its length. `pivot`: R_kk^2;
  // `length`: of the column in P; `along`: the sum over i < k of R_ik v_i, in place of which v_k comes back. Of the last
  // round: columns are orthonormal but for what the round before has left, and one that is shortened by half is not.
  MATOPT_HD double next(double pivot, double length, double must, bool last, double& along) {
    const double rounding = 16 * std::numeric_limits<double>::epsilon() * largest * largest,
                 limit = last ? math::max(must, 0.5) : must, sum = along;
    along = 0;
    if (!(length > must)) return 0;
    if (!(pivot > limit * limit)) {
      if (!(rounding < limit * limit)) lost = true;
      return 0;
    }
    const double inverse = math::inverse_root(pivot);
    along = (sum < 0 ? 1 - sum : -1 - sum) * inverse;
    largest = math::max(largest, math::abs(along));
    if (!(largest < (last ? 8.0 : 262144.0))) lost = true;
    return inverse;
  }
};

}  // namespace MATOPT_NAMESPACE::detail
