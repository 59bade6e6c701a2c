// Rules on the CPU backend, in a file that nvcc compiles: the headers serve programs that are partly CUDA.
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/engine/rule_registry.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/qk_clip.hpp>

void some_rules(matopt::rule_registry<matopt::eigen_backend>& rules) {
  rules.add<matopt::numuon>("numuon").add<matopt::muown>("muown").add<matopt::adamw>("adamw");
}

template class matopt::qk_clip<matopt::eigen_backend>;

// Views and functors are what kernels will take: they have to be usable there.
__global__ void assign(matopt::view<float> y, matopt::view<const float> x) {
  float value = x(0, 0);
  matopt::fn::momentum{0.95, 0.05, true}(y(0, 0), value, x(0, 0));
  y(0, 0) = static_cast<float>(matopt::philox::normal(1, 2, 3, 4));
}
