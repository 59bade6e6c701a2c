#include <matopt/policy/momentum/adam_direction.hpp>
#include <matopt/policy/momentum/adaptive_rate.hpp>
#include <matopt/policy/momentum/corrected_ema.hpp>
#include <matopt/policy/momentum/eigen_whitened.hpp>
#include <matopt/policy/momentum/emerging_kl_direction.hpp>
#include <matopt/policy/momentum/kl_direction.hpp>
#include <matopt/policy/momentum/lion_momentum.hpp>
#include <matopt/policy/momentum/mars.hpp>
#include <matopt/policy/momentum/moment_scaled.hpp>
#include <matopt/policy/momentum/momentum.hpp>
#include <matopt/policy/momentum/no_momentum.hpp>
#include <matopt/policy/momentum/polar_first.hpp>
#include <matopt/policy/momentum/positive_negative.hpp>
#include <matopt/policy/momentum/positive_negative_adam.hpp>
#include <matopt/policy/momentum/quantized.hpp>
#include <matopt/policy/momentum/quasi_hyperbolic.hpp>
#include <matopt/policy/momentum/sign_of.hpp>
#include <matopt/policy/momentum/soap_direction.hpp>
#include <matopt/policy/momentum/variance_adaptive.hpp>

#include "erased.hpp"

namespace matopt::test {

// A momentum in 8 bits has the name of the one in floats, because their checkpoints are each other's; the table tells them apart.
struct in_8_bits : quantized<nesterov_heavy_ball> {
  static std::string name() { return "quantized<nesterov_heavy_ball>"; }
};

const momenta& all_momenta() {
  static const momenta list = [] {
    momenta l;
    add<no_momentum>(l), add<ema>(l), add<nesterov_ema>(l), add<heavy_ball>(l), add<nesterov_heavy_ball>(l);
    add<corrected_ema>(l), add<corrected_nesterov_ema>(l), add<quasi_hyperbolic>(l), add<lion_momentum>(l);
    add<positive_negative>(l), add<positive_negative_adam>(l), add<adam_direction>(l), add<sign_of<>>(l);
    add<mars<>>(l), add<two_gradients<>>(l), add<noise_to_signal>(l), add<variance_scaled>(l),
        add<nesterov_moment_scaled>(l), add<norm_rate<>>(l);
    add<column_rate<>>(l), add<soap_direction>(l, {.frequency = 2}), add<polar_first<svd_polar>>(l);
    add<eigen_whitened<>>(l, {.trust_gate = true}), add<kl_soap_direction>(l, {.frequency = 2});
    add<kl_shampoo_direction>(l, {.frequency = 2}), add<emerging_kl_direction>(l);
    add<in_8_bits>(l);
    return l;
  }();
  return list;
}

}  // namespace matopt::test
