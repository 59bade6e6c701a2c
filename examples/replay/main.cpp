// replay: runs the cases of golden files, and says how far each is from the trajectory it holds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <matopt/core/error.hpp>
#include <string>
#include <vector>

#include "case.hpp"

namespace {

struct options {
  std::vector<std::string> files, left_out;
  std::string out, scalar = "double", backend = "eigen";
  double tolerance = 0;

  bool in_double() const { return scalar == "double"; }
};

// The tolerances that a user who names none gets.
double default_tolerance(const options& o) {
  struct line {
    const char *backend, *scalar;
    double tolerance;
  };
  constexpr line lines[] = {
      {"eigen", "double", 1e-11},  // golden files are accurate to about 1e-13
      {"eigen", "float", 2e-4},
      {"cuda", "double", 1e-10},  // multiply-adds are fused, and sums run in other orders
      {"cuda", "float", 2e-2},    // Newton-Schulz iterates in float16, whose rounding five steps amplify
  };
  for (const line& l : lines)
    if (o.backend == l.backend && o.scalar == l.scalar) return l.tolerance;
  throw matopt::error("no tolerance for " + o.backend + " in " + o.scalar);
}

replay::runner runner_of(const options& o) {
  if (o.backend == "eigen") return replay::runner_on_cpu(o.in_double());
#ifdef REPLAY_CUDA
  return replay::runner_on_cuda(o.in_double());
#else
  throw matopt::bad_value("--backend", "cuda", "eigen: this build has no CUDA backend");
#endif
}

bool leaves_out(const options& o, const nlohmann::json& c) {
  return c.is_object() && c.contains("rule") && c.at("rule").is_string() &&
         std::find(o.left_out.begin(), o.left_out.end(), c.at("rule").get<std::string>()) != o.left_out.end();
}

// Exit status: 0 if every case is within the tolerance, 2 if a file could not be read. Every file and case is tried.
int replay_files(const options& o) {
  const replay::runner run = runner_of(o);
  nlohmann::json results = nlohmann::json::array();
  int cases = 0, left_out = 0, outside = 0, failed = 0;
  bool unread = false;
  const auto cases_of = [&](const std::string& path) {
    try {
      return replay::read_cases(path);
    } catch (const std::exception& e) {
      unread = true;
      std::fprintf(stderr, "replay: %s\n", e.what());
      return std::vector<nlohmann::json>();
    }
  };
  double worst = 0;
  for (const auto& path : o.files)
    for (const auto& c : cases_of(path)) {
      if (leaves_out(o, c)) {
        ++left_out;
        continue;
      }
      ++cases;
      try {
        const auto result = run(c);
        results.push_back(result.computed);
        const double error = result.error.value_or(0);
        const bool bad = !(error <= o.tolerance);
        outside += bad;
        worst = std::max(worst, error);
        const char* where = result.on_cpu && o.backend != "eigen" ? "  (on the CPU)" : "";
        if (result.error)
          std::printf("%-32s %8s  %.2e%s%s\n", result.label.c_str(), result.shape.c_str(), error, where,
                      bad ? "  OUTSIDE" : "");
        else
          std::printf("%-32s %8s  computed%s\n", result.label.c_str(), result.shape.c_str(), where);
      } catch (const std::exception& e) {
        ++failed;
        std::printf("%-32s           failed\n", replay::label_of(c).c_str());
        std::fprintf(stderr, "replay: %s, case %d: %s\n", path.c_str(), cases, e.what());
      }
    }
  if (left_out > 0) std::printf("%d cases left out\n", left_out);
  std::printf("%d cases in %s, worst relative error %.2e, %d outside of %.1e, %d failed\n", cases, o.scalar.c_str(),
              worst, outside, o.tolerance, failed);
  if (!o.out.empty()) {
    const nlohmann::json file{{"format", 1},
                              {"layout", "row-major [out, in]"},
                              {"dtype", o.in_double() ? "float64" : "float32"},
                              {"cases", results}};
    std::ofstream to(o.out);
    to << file.dump(1) << '\n';
    to.close();
    if (!to) throw matopt::bad_file(o.out + ": cannot be written");
  }
  return unread ? 2 : outside + failed > 0;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{"Runs the cases of golden files and compares with the trajectories that they hold."};
  app.add_option("cases", o.files, "JSON files in the golden format")->required();
  app.add_option("--leave-out", o.left_out, "rules whose cases are not run, with commas between them")->delimiter(',');
  app.add_option("--out", o.out, "write the computed trajectories here, in the same format");
  app.add_option("--scalar", o.scalar, "element type: double or float")->check(CLI::IsMember({"double", "float"}));
  app.add_option("--backend", o.backend, "eigen, or cuda in a build that has it")
      ->check(CLI::IsMember({"eigen", "cuda"}));
  app.add_option("--tolerance", o.tolerance, "largest relative error; 1e-11 in double (cuda: 1e-10) and 2e-4 in float")
      ->check(CLI::Range(0.0, std::numeric_limits<double>::max()));
  CLI11_PARSE(app, argc, argv);
  if (o.tolerance == 0 && app.count("--tolerance") == 0) o.tolerance = default_tolerance(o);
  try {
    return replay_files(o);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "replay: %s\n", e.what());
    return 2;
  }
}
