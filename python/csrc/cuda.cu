// Rules on a GPU, for float tensors and for those of 16 bits: a selection, because each costs nvcc much time.
#include <matopt/adamw.hpp>
#include <matopt/adapters/torch/cuda.cuh>
#include <matopt/adapters/torch/orthogonalize.hpp>
#include <matopt/adapters/torch/rules.hpp>
#include <matopt/lion.hpp>
#include <matopt/moonlight.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/normuon.hpp>
#include <matopt/numuon.hpp>

#include "torch_muon.hpp"

void add_gpu_rules(matopt::torch_rules& to) {
  matopt::rule_registry<matopt::cuda_backend> gpu;
  gpu.add<matopt::adamw>("adamw").add<matopt::lion>("lion");
  gpu.add<matopt::muon>("muon").add<matopt::moonlight>("moonlight").add<matopt::normuon>("normuon");
  gpu.add<matopt::muown>("muown").add<matopt::numuon>("numuon").add<matopt::numuon_krylov>("numuon_krylov");
  gpu.add<matopt::torch_muon>("torch_muon").add<matopt::torch_muon_match_rms>("torch_muon_match_rms");
  add_torch_muon_forms(gpu);
  to.add(std::move(gpu));
}

at::Tensor orthogonalize_on_gpu(const at::Tensor& x, const matopt::newton_schulz<>& by) {
  const auto gpu = matopt::torch_device<matopt::cuda_backend>::make(x.device());
  return matopt::orthogonalized(*gpu, by, x);
}
