// associative_memory: why Muon learns rare facts as fast as frequent ones, on a task small enough to see it exactly.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "experiment.hpp"

using namespace associative_memory;

namespace {

struct options {
  task clean{.items = 128, .groups = 8}, noisy{.items = 256, .groups = 64, .noise = 0.2};
  int steps = 1200, threads = 0;
  double limit = 1e-3;
  bool without_noise = false, exact = false;
  std::string out = "run/associative_memory.svg";
};

struct curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

// What stands beside a measured number: the paper's statement, or what an independent implementation gave at the
// default sizes.
void print(const char* what, double measured, const char* expected) {
  std::printf("%-58s %10.4g   %s\n", what, measured, expected);
}

curve curve_of(const char* name, const training& t) {
  curve c{name, {}};
  // Evenly on a logarithmic axis: a thousand steps of one curve would be most of the file.
  for (std::size_t s = 1; s < t.loss.size(); s = std::max(s + 1, s * 21 / 20))
    c.points.emplace_back(static_cast<double>(s), t.loss[s]);
  return c;
}

auto oracle_of(const memory& facts) {
  return task_basis_sign{matopt::view_of(facts.inputs()), matopt::view_of(facts.outputs())};
}

std::vector<curve> learn_clean_facts(const options& o) {
  const memory facts(o.clean);
  std::printf("%td facts in %td groups, exponent %g, no noise; steps to a loss below %g\n\n", facts.items(),
              facts.groups(), o.clean.exponent, o.limit);
  std::printf("%-34s %8s %8s %10s   %s\n", "rule", "lr", "steps", "tail/head", "steps expected (128 facts, 8 groups)");
  const auto compare = [&](const char* name, const char* lr_name, const auto& rule, double lr, const char* expected) {
    const training t = train(facts, rule, lr, o.steps, o.limit / 100, o.threads);
    const int steps = t.steps_to(o.limit);
    const std::string shown = steps < 0 ? "> " + std::to_string(o.steps) : std::to_string(steps);
    const auto at = steps < 0 ? t.loss.size() - 1 : static_cast<std::size_t>(steps);
    std::printf("%-34s %8s %8s %10.3g   %s\n", name, lr_name, shown.c_str(), t.tail_to_head[at], expected);
    std::fflush(stdout);
    return t;
  };
  const double k = static_cast<double>(facts.items());
  const training muon = compare("Muon, exact polar factor", "1", without_momentum<matopt::svd_polar>(), 1, "12");
  const training iterated = compare("Muon, Newton-Schulz", "1", without_momentum<matopt::newton_schulz<>>(), 1, "16");
  // A sign step moves the right logit up and the wrong ones down: a lead grows by twice the rate.
  const training oracle = compare("sign, task's basis", "1/2", without_momentum(oracle_of(facts)), 0.5, "12");
  // Rate 1 (and 1 / sqrt K for signs) is a step of the same Frobenius norm as Muon's.
  compare("normalised gradient", "1/2", without_momentum<fixed_length>(), 0.5, "18 to 47, over rates");
  const training normalized = compare("normalised gradient", "1", without_momentum<fixed_length>(), 1, "");
  compare("sign, weight's basis", "1/2rtK", without_momentum<entrywise_sign>(), 0.5 / std::sqrt(k),
          "28, rate not given");
  const training sign =
      compare("sign, weight's basis", "1/rtK", without_momentum<entrywise_sign>(), 1 / std::sqrt(k), "");
  const training descent = compare("gradient descent", "4/p_max", without_momentum<matopt::no_orthogonalizer>(),
                                   4 / facts.most_frequent(), "1054");

  const auto logs = [](const training& t, std::size_t first, std::size_t last, bool log_step) {
    std::vector<std::pair<double, double>> points;
    for (std::size_t s = first; s <= std::min(last, t.loss.size() - 1); ++s) {
      const auto step = static_cast<double>(s);
      points.emplace_back(log_step ? std::log(step) : step, std::log(t.loss[s]));
    }
    return slope(points);
  };
  std::printf("\n%-58s %10s   %s\n", "", "measured", "expected");
  if (muon.loss.size() > 12) {
    print("Muon: slope of log loss in t, t = 8 .. 12", logs(muon, 8, 12, false), "-1 (measured before: -0.997)");
    print("Muon: tail/head at t = 8", muon.tail_to_head[8], "1 (1.12)");
  }
  if (descent.loss.size() > 1000) {
    print("gradient descent: slope of log loss in log t, 100 .. 1000", logs(descent, 100, 1000, true), "-1 (-1.05)");
    print("gradient descent: tail/head at t = 1000", descent.tail_to_head[1000], "p_max / p_min = 22.6 (22.8)");
  }
  return {curve_of("Muon, exact polar factor", muon),  curve_of("Muon, Newton-Schulz", iterated),
          curve_of("sign, task's basis", oracle),      curve_of("gradient descent", descent),
          curve_of("normalised gradient", normalized), curve_of("sign, weight's basis", sign)};
}

std::vector<curve> learn_noisy_facts(const options& o) {
  const memory facts(o.noisy);
  const double log_k = std::log(static_cast<double>(facts.items()));
  const int horizons[] = {32, 48, 64, 96, 128};
  std::printf(
      "\n%td facts in %td groups, exponent %g, noise %g; rate 2 log K / T, mean of the last T / 8 steps\n\n%-34s",
      facts.items(), facts.groups(), o.noisy.exponent, o.noisy.noise, "rule, loss after T =");
  for (const int t : horizons) std::printf(" %8d", t);
  std::printf(" %8s   %s\n", "slope", "expected");
  std::vector<curve> curves;
  const auto compare = [&](const char* name, const auto& rule, const auto& lr, const char* expected) {
    std::printf("%-34s", name);
    curve c{name, {}};
    std::vector<std::pair<double, double>> points;
    for (const int t : horizons) {
      const double loss = train(facts, rule, lr(t), t, 0, o.threads).mean_of_last(t / 8);
      std::printf(" %8.2e", loss);
      std::fflush(stdout);
      c.points.emplace_back(t, loss), points.emplace_back(std::log(t), std::log(loss));
    }
    std::printf(" %8.3f   %s\n", slope(points), expected);
    curves.push_back(std::move(c));
  };
  const auto by_horizon = [&](int t) { return 2 * log_k / t; };
  if (o.exact) compare("Muon, exact polar factor", without_momentum<matopt::svd_polar>(), by_horizon, "-2 (-2.16)");
  compare("Muon, Newton-Schulz", without_momentum<matopt::newton_schulz<>>(), by_horizon, "-2 (-2.14)");
  const auto half_of_that = [&](int t) { return log_k / t; };
  compare("sign, task's basis", without_momentum(oracle_of(facts)), half_of_that, "-2 (-1.97)");
  const auto descents = [&](int) { return 4 / facts.most_frequent(); };
  compare("gradient descent, 4/p_max", without_momentum<matopt::no_orthogonalizer>(), descents, "");
  return curves;
}

void follow_descent(const options& o) {
  std::printf("\ngradient descent, 20000 groups of 4 facts, noise %g: slope of log loss in log T, T = 64 .. 4096\n\n",
              o.noisy.noise);
  for (const auto& [exponent, expected] :
       {std::pair{1.5, "-(1 - 1/1.5) = -0.333 (-0.352)"}, std::pair{2.0, "-(1 - 1/2) = -0.5 (-0.500)"}}) {
    auto points = descent_at_scale({.items = 80000, .groups = 20000, .exponent = exponent, .noise = o.noisy.noise}, 4);
    for (auto& [t, loss] : points) t = std::log(t), loss = std::log(loss);
    char what[64];
    std::snprintf(what, sizeof what, "exponent %g", exponent);
    print(what, slope(points), expected);
  }
}

// The same rule has the same colour in both pictures.
const char* color_of(const std::string& name) {
  if (name.find("exact") != std::string::npos) return "#d62728";
  if (name.find("Newton") != std::string::npos) return "#ff7f0e";
  if (name.find("task") != std::string::npos) return "#2ca02c";
  if (name.find("descent") != std::string::npos) return "#1f77b4";
  return name.find("sign") != std::string::npos ? "#17becf" : "#9467bd";
}

// The oracle's curve lies on that of the exact polar factor; dashed, it lets the other be seen.
const char* dash_of(const std::string& name) { return name.find("task") != std::string::npos ? "2" : "1"; }

// Two pictures side by side: loss against step, and, where there is one, loss against the length of the training.
void draw(const std::string& path, const std::vector<curve>& clean, const std::vector<curve>& noisy) {
  std::FILE* probe = ::popen("gnuplot --version >/dev/null 2>&1", "r");
  if (!probe || ::pclose(probe) != 0) {
    std::printf("\nno plot: gnuplot cannot be run (Debian package: gnuplot-nox)\n");
    return;
  }
  if (const auto folder = std::filesystem::path(path).parent_path(); !folder.empty())
    std::filesystem::create_directories(folder);
  std::string script = "set terminal svg size " + std::string(noisy.empty() ? "620" : "1240") +
                       ",420 font 'sans-serif,13' background '#ffffff'\nset output '" + path +
                       "'\nset grid lc '#dddddd'\nset border lc '#888888'\nset tics nomirror\nset logscale xy\n"
                       "set format y '10^{%L}'\nset key bottom right noenhanced\nset autoscale xfix\n";
  const auto panel = [&](const std::vector<curve>& curves, const std::string& block, const char* title,
                         const char* across, const char* style) {
    for (std::size_t i = 0; i < curves.size(); ++i) {
      script += "$" + block + std::to_string(i) + " << EOD\n";
      for (const auto& [x, y] : curves[i].points)
        if (y > 0) script += std::to_string(x) + ' ' + std::to_string(std::log(y)) + '\n';
      script += "EOD\n";
    }
    script += std::string("set title '") + title + "'\nset xlabel '" + across + "'\nplot ";
    for (std::size_t i = 0; i < curves.size(); ++i)
      script += (i ? ", $" : "$") + block + std::to_string(i) + " using 1:(exp($2)) with " + style + " lw 2 dt " +
                dash_of(curves[i].name) + " lc rgb '" + color_of(curves[i].name) + "' title \"" + curves[i].name + '"';
    script += '\n';
  };
  if (!noisy.empty()) script += "set multiplot layout 1,2\n";
  panel(clean, "clean", "loss, without noise", "step", "lines");
  if (!noisy.empty()) {
    script += "set xtics (32, 48, 64, 96, 128)\nset key center right\n";
    panel(noisy, "noisy", "loss above the best possible, with noise", "length T of the training",
          "linespoints pt 7 ps 0.5");
  }
  std::FILE* pipe = ::popen("gnuplot 2>&1 >/dev/null", "w");
  if (!pipe) throw matopt::error("cannot run gnuplot");
  std::fputs(script.c_str(), pipe);
  if (::pclose(pipe) != 0) throw matopt::error("gnuplot could not draw \"" + path + '"');
  std::printf("\nplot: %s\n", path.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{"Learns facts of unequal frequency with several optimizers, after arXiv 2602.05725."};
  app.add_option("--items", o.clean.items, "facts of the part without noise")->capture_default_str();
  app.add_option("--groups", o.clean.groups, "groups of equal frequency")->capture_default_str();
  app.add_option("--exponent", o.clean.exponent, "how steeply the frequencies fall")->capture_default_str();
  app.add_option("--steps", o.steps, "most steps of the part without noise")->capture_default_str();
  app.add_option("--noise", o.noisy.noise, "fraction of random answers in the second part")->capture_default_str();
  app.add_option("--noisy-items", o.noisy.items, "facts of the second part")->capture_default_str();
  app.add_option("--noisy-groups", o.noisy.groups, "its groups")->capture_default_str();
  app.add_flag("--without-noise", o.without_noise, "only the first part");
  app.add_flag("--exact", o.exact, "the second part with the exact polar factor, too: a minute more");
  app.add_option("--seed", o.clean.seed, "of the embeddings")->capture_default_str();
  app.add_option("--threads", o.threads, "0: one per core");
  app.add_option("--out", o.out, "the plot, an SVG file; empty: none")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  o.noisy.seed = o.clean.seed, o.noisy.exponent = o.clean.exponent;
  try {
    const auto clean = learn_clean_facts(o);
    std::vector<curve> noisy;
    if (!o.without_noise) {
      noisy = learn_noisy_facts(o);
      follow_descent(o);
    }
    if (!o.out.empty()) draw(o.out, clean, noisy);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "associative_memory: %s\n", e.what());
    return 1;
  }
  return 0;
}
