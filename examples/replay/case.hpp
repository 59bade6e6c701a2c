// One case of a golden file: run it, compare with the trajectory that it holds.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace replay {

struct outcome {
  std::string label, shape;
  std::optional<double>
      error;  // worst over the steps of max |ours - theirs| / max |theirs|; none if the case has no result
  nlohmann::json computed;  // the case, with our results
  bool on_cpu = false;      // a case that runs on the CPU whatever the backend (compression)
};

// Runs a case on `backend`; T is what everything is computed in. Throws matopt::error for what a case lacks or nothing
// knows. Compiled for each backend in case.cpp or cuda/case.cu.
template <class T, class B>
outcome run(B& backend, const nlohmann::json& c);

// The same with the type forgotten, on a backend of its own.
using runner = std::function<outcome(const nlohmann::json&)>;
runner runner_on_cpu(bool in_double);
runner runner_on_cuda(bool in_double);  // only in a build with CUDA

// A compression, in double and on the CPU.
void run_compression(const nlohmann::json& c, outcome& out);

// What a case is called: its label, or its rule, or "?".
std::string label_of(const nlohmann::json& c);

// The cases of a file. Throws matopt::error with the line of a syntax error, or what is missing.
std::vector<nlohmann::json> read_cases(const std::string& path);

}  // namespace replay
