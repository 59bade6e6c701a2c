// How large the public classes are in the translation unit that includes this: the same in all of them, whatever macros
// they are compiled with.
#pragma once
#include <array>
#include <cstddef>

#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/param_groups.hpp>
#include <matopt/qk_clip.hpp>
#include <matopt/step_observer.hpp>

namespace {  // each translation unit has its own

template <class... T>
constexpr auto sizes() {
  return std::array<std::size_t, 2 * sizeof...(T)>{sizeof(T)..., alignof(T)...};
}
using cpu_backend = matopt::eigen_backend;
[[maybe_unused]] constexpr auto public_sizes = sizes<
    cpu_backend, cpu_backend::buffer, matopt::any_optimizer<cpu_backend>, matopt::optimizer<matopt::muon, cpu_backend>,
    matopt::param_groups<cpu_backend>, matopt::step_observer<matopt::any_optimizer<cpu_backend>>,
    matopt::step_observation, matopt::qk_clip<cpu_backend>, matopt::muon, matopt::muown, matopt::numuon,
    matopt::view<float>, matopt::pass<cpu_backend, float>, matopt::step_numbers<float>, matopt::optimizer_options,
    matopt::parameter_options, matopt::step_status, matopt::memory_report, matopt::state_tensor, matopt::thread_pool>();

}  // namespace
