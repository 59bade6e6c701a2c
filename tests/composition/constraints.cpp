#include <matopt/policy/constraint/cautious_decay.hpp>
#include <matopt/policy/constraint/cautious_decay_after.hpp>
#include <matopt/policy/constraint/clamped_decay.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/decay_after.hpp>
#include <matopt/policy/constraint/decoupled_decay.hpp>
#include <matopt/policy/constraint/frank_wolfe.hpp>
#include <matopt/policy/constraint/independent_decay.hpp>
#include <matopt/policy/constraint/look_ahead.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/norm_sphere.hpp>
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/constraint/radial_brake.hpp>
#include <matopt/policy/constraint/rate_penalty.hpp>
#include <matopt/policy/constraint/relative_update.hpp>
#include <matopt/policy/constraint/row_sphere.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/constraint/spectral_normalize.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/constraint/spectral_threshold.hpp>
#include <matopt/policy/constraint/tail_average.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>
#include <matopt/policy/constraint/weight_polar.hpp>

#include "erased.hpp"

namespace matopt::test {

const constraints& all_constraints() {
  static const constraints list = [] {
    constraints l;
    add<decoupled_decay>(l), add<independent_decay>(l), add<coupled_decay>(l), add<cautious_decay>(l);
    add<clamped_decay>(l), add<decay_after>(l), add<frank_wolfe>(l), add<weight_normalization<>>(l),
        add<row_sphere<>>(l);
    add<nuclear_budget<fixed_rank>>(l), add<nuclear_budget<fixed_rank, weight_normalization<>>>(l);
    add<projected<norm_control>>(l), add<projected<hyperball>>(l), add<projected<oblique>>(l);
    add<projected<relative_update>>(l), add<projected<update_floor>>(l), add<projected<radial_brake>>(l);
    add<projected<norm_brake>>(l), add<projected<cautious_decay_after>>(l);
    add<projected<spectral_normalize<>>>(l), add<projected<spectral_hammer<>>>(l), add<projected<spectral_decay<>>>(l);
    add<projected<soft_cap<>>>(l), add<projected<hard_cap<>>>(l), add<projected<exact_hard_cap>>(l);
    add<projected<spectral_clipped_decay>>(l), add<projected<nuclear_prox>>(l),
        add<projected<nuclear_polar_decay<>>>(l);
    add<stiefel<>>(l), add<projected<spectral_retraction<>>>(l), add<projected<spectral_sphere<>>>(l);
    add<projected<rate_penalty>>(l), add<projected<spectral_normalize<>, weight_normalization<>>>(l);
    add<master_weights<>>(l), add<master_weights<weight_normalization<>>>(l),
        add<master_weights<projected<oblique>>>(l);
    add<nuclear_budget<fixed_rank, master_weights<>>>(l);
    add<projected<look_ahead>>(l, {.projection = {.from = 0}}), add<projected<tail_average>>(l);
    return l;
  }();
  return list;
}

}  // namespace matopt::test
