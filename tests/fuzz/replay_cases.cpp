// The golden files of examples/replay: their JSON, their matrices and their settings.
#include <replay/matrices.hpp>
#include <replay/read_cases.cpp>

#include "target.hpp"

FUZZ(replay_cases) {
  fuzz::refuse_or([&] {
    for (const auto& c : replay::read_cases(fuzz::file_with(data))) {
      replay::label_of(c);
      fuzz::refuse_or([&] { replay::matrix_of<float>("W0", replay::member(c, "W0"), 2, 2); });
      fuzz::refuse_or([&] { replay::matrix_of<double>("X", replay::member(c, "X")); });
    }
  });
}
