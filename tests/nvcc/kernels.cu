// The kernels that differ between architectures, for each that the toolkit knows (CMakeLists.txt).
#include <matopt/cuda.cuh>
#include <matopt/muon.hpp>
#include <matopt/optimizer.hpp>

template class matopt::optimizer<matopt::muon, matopt::cuda_backend>;
