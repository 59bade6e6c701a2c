#include <matopt/policy/normalizer/element_norm.hpp>
#include <matopt/policy/normalizer/line_norm.hpp>
#include <matopt/policy/normalizer/neuron_norm.hpp>
#include <matopt/policy/normalizer/no_normalizer.hpp>
#include <matopt/policy/normalizer/target_rms.hpp>
#include <matopt/policy/orthogonalizer/balanced_polar.hpp>
#include <matopt/policy/orthogonalizer/block_krylov_polar.hpp>
#include <matopt/policy/orthogonalizer/contra_polar.hpp>
#include <matopt/policy/orthogonalizer/dion_polar.hpp>
#include <matopt/policy/orthogonalizer/line_direction.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/nuclear_scaled.hpp>
#include <matopt/policy/orthogonalizer/polar_factor.hpp>
#include <matopt/policy/orthogonalizer/qdwh_polar.hpp>
#include <matopt/policy/orthogonalizer/row_column_scaling.hpp>
#include <matopt/policy/orthogonalizer/sign_direction.hpp>
#include <matopt/policy/orthogonalizer/sliced_polar.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "erased.hpp"

namespace matopt::test {

const orthogonalizers& all_orthogonalizers() {
  static const orthogonalizers list = [] {
    orthogonalizers l;
    add<no_orthogonalizer>(l), add<newton_schulz<>>(l), add<svd_polar>(l), add<polar_factor>(l), add<qdwh_polar>(l),
        add<dion_polar>(l);
    // A basis smaller than the short side, or it would decompose exactly.
    add<block_krylov_polar<>>(l, {.iterations = 1, .oversampling = 0});
    add<block_krylov_polar<true>>(l, {.iterations = 1, .oversampling = 0});
    add<subspace_polar>(l), add<nuclear_scaled<>>(l), add<sign_direction>(l), add<column_direction>(l),
        add<row_direction>(l);
    add<row_column_scaling>(l), add<contra_polar<>>(l), add<balanced_polar<>>(l), add<sliced_polar<>>(l);
    return l;
  }();
  return list;
}

const normalizers& all_normalizers() {
  static const normalizers list = [] {
    normalizers l;
    add<no_normalizer>(l), add<neuron_norm>(l), add<element_norm>(l), add<line_norm>(l, {.order = line_order::row_col});
    add<target_rms>(l);
    return l;
  }();
  return list;
}

}  // namespace matopt::test
