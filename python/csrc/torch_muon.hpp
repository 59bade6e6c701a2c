// The forms of torch.optim.Muon that no published rule has: nesterov=False and adjust_lr_fn="spectral_unclamped".
#pragma once
#include <matopt/torch_muon.hpp>

template <class Registry>
void add_torch_muon_forms(Registry& to) {
  using matopt::ema, matopt::torch_muon, matopt::torch_muon_match_rms;
  using spectral = torch_muon::with_scale<matopt::spectral_ratio>;
  to.template add<spectral>("torch_muon_spectral");
  to.template add<torch_muon::with_momentum<ema>>("torch_muon_plain");
  to.template add<torch_muon_match_rms::with_momentum<ema>>("torch_muon_match_rms_plain");
  to.template add<spectral::with_momentum<ema>>("torch_muon_spectral_plain");
}
