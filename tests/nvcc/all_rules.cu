// The rules on the CPU backend, in a file that nvcc compiles: the headers serve programs that are partly CUDA.
#include <matopt/eigen.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/rate_penalty.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/constraint/spectral_threshold.hpp>
#include <matopt/published_rules.hpp>

// One of each kind; the headers of all are read above.
void every_kind(matopt::rule_registry<matopt::eigen_backend>& rules) {
  matopt::add_constrained_rules(rules);
  rules.add<matopt::muon>("muon").add<matopt::adamw>("adamw").add<matopt::normuon>("normuon");
  rules.add<matopt::namo_d>("namo_d").add<matopt::mars_m_exact>("mars_m_exact").add<matopt::soap>("soap");
  rules.add<matopt::dion>("dion").add<matopt::polargrad_qdwh>("polargrad_qdwh");
  using capped = matopt::muon::with_constraint<matopt::projected<matopt::soft_cap<>>>;
  using sphere = matopt::muon::with_constraint<matopt::projected<matopt::spectral_sphere<>>>;
  rules.add<capped>("capped").add<sphere>("sphere");
}

// Views and functors are what kernels will take: they have to be usable there.
__global__ void assign(matopt::view<float> y, matopt::view<const float> x) {
  float value = x(0, 0);
  matopt::fn::momentum{0.95, 0.05, true}(y(0, 0), value, x(0, 0));
  y(0, 0) = static_cast<float>(matopt::philox::normal(1, 2, 3, 4));
}
