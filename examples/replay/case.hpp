// One case of a golden file: run it, compare with the trajectory that it holds.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace matopt {
class eigen_backend;
}

namespace replay {

struct outcome {
  std::string label, shape;
  std::optional<double>
      error;  // worst over the steps of max |ours - theirs| / max |theirs|; none if the case has no result
  nlohmann::json computed;  // the case, with our results
};

// T is what everything is computed in. Throws matopt::error for what a case lacks or nothing knows.
template <class T>
outcome run(matopt::eigen_backend& backend, const nlohmann::json& c);

// The cases of a file. Throws matopt::error with the line of a syntax error, or what is missing.
std::vector<nlohmann::json> read_cases(const std::string& path);

}  // namespace replay
