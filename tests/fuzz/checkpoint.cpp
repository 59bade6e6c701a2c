// restore_state: state of Muon and AdamW from a tensor_file. What is refused leaves the optimizer as it was.
#include <array>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/state_io.hpp>

#include "target.hpp"

FUZZ(checkpoint) {
  using groups = matopt::param_groups<matopt::eigen_backend>;
  struct run {
    matopt::eigen_backend cpu{1};
    std::array<float, 6> w{1, 2, 3, 4, 5, 6}, g{1, 0, 2, 0, 3, 0};
    groups opt{cpu};
    run() {
      opt.add_group("hidden", matopt::muon{}, 0.02).add_group("rest", matopt::adamw{}, 0.01);
      opt.add("a", matopt::row_major(w.data(), 2, 2), matopt::row_major<const float>(g.data(), 2, 2), "hidden");
      opt.add("b", matopt::row_major(w.data() + 4, 2, 1), matopt::row_major<const float>(g.data() + 4, 2, 1), "rest");
      opt.finalize();
      opt.step(1);
    }
  };
  static run r;
  const auto everything = [] {
    matopt::tensor_file file;
    matopt::store_state(r.opt, file);
    return file;
  };
  static const matopt::tensor_file begin = everything();
  const auto equal = [](const matopt::tensor_file& a, const matopt::tensor_file& b) {
    if (a.metadata != b.metadata || a.tensors.size() != b.tensors.size()) return false;
    for (const auto& [name, t] : a.tensors)
      if (b.tensors.at(name).data != t.data) return false;
    return true;
  };
  for (const bool lenient : {false, true}) {
    bool taken = false;
    fuzz::refuse_or([&] {
      const matopt::restore_options o{.other_settings = lenient, .convert = lenient, .partial = lenient};
      matopt::load_state(r.opt, fuzz::file_with(data), o);
      taken = true;
    });
    if (!taken) fuzz::require(equal(everything(), begin), "what was refused has changed the optimizer");
    if (taken) matopt::restore_state(r.opt, begin);
  }
}
