// Every rule on the CPU backend, in a file that nvcc compiles: the headers serve programs that are partly CUDA.
#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>

template class matopt::optimizer<matopt::muon, matopt::eigen_backend>;
template class matopt::optimizer<matopt::numuon, matopt::eigen_backend>;
template class matopt::optimizer<matopt::muown, matopt::eigen_backend>;
template class matopt::optimizer<matopt::angular_muown, matopt::eigen_backend>;
template class matopt::optimizer<matopt::adamw, matopt::eigen_backend>;

// Views and functors are what kernels will take: they have to be usable there.
__global__ void assign(matopt::view<float> y, matopt::view<const float> x) {
  float value = x(0, 0);
  matopt::fn::momentum{0.95, 0.05, true}(y(0, 0), value, x(0, 0));
  y(0, 0) = static_cast<float>(matopt::philox::normal(1, 2, 3, 4));
}
