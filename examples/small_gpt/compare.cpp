// The command `compare`: the same training with several rules, and the report on it.
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include "compression.hpp"
#include "plot.hpp"
#include "report.hpp"
#include "stop_signals.hpp"
#include "trainer.hpp"

namespace small_gpt {

namespace {

// The settings of each run, all checked: a misspelt rule shows now, not after the others' training.
std::vector<run_settings> runs_of(const options& o) {
  std::vector<run_settings> runs;
  for (const std::string& entry : o.rules) {
    run_settings s = o.run;
    const auto equals = std::min(entry.find('='), entry.size());
    s.rule = entry.substr(0, equals);
    if (equals < entry.size()) s.lr = matopt::detail::number("--rules, rate of " + s.rule, entry.substr(equals + 1));
    for (const auto& other : runs)
      if (other.rule == s.rule) throw matopt::bad_value("--rules", '"' + s.rule + "\" twice", "each rule once");
    rules().settings(s.rule);
    validate(s);
    runs.push_back(resolved(s));
  }
  if (runs.empty()) throw matopt::bad_value("--rules", "empty", "one rule or more");
  return runs;
}

}  // namespace

exit_status compare(const options& o, matopt::eigen_backend& cpu) {
  require_gnuplot();
  if (o.out.empty()) throw matopt::bad_value("--out", "\"\"", "the name of a folder");
  const std::vector<run_settings> runs = runs_of(o);
  analysis_options analysis;
  analysis.keep = o.keep, analysis.calibration = o.calibration;
  analysis.validate();
  calibration::check(o.calibration);
  const std::string json = o.out + "/report.json", page = o.out + "/report.html", text = o.out + "/report.md";
  for (const auto& path : {json, page, text})
    if (std::filesystem::exists(path)) {
      if (!o.force)
        throw matopt::bad_file("\"" + path +
                               "\" is there already: to replace the report and its runs, add --force; or name " +
                               "another folder with --out");
      require_writable_file("the report", path);
    }
  std::vector<run_folder> folders;
  for (const auto& s : runs)
    folders.emplace_back(o.out + "/" + s.rule, o.force ? existing_run::replace : existing_run::refuse);

  std::vector<std::string> paths;
  bool any = false;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    std::fprintf(stderr, "--- %s\n", runs[i].rule.c_str());
    paths.push_back(folders[i].path());
    trainer t(runs[i], cpu, std::move(folders[i]), o.given);
    if (i == 0) note_idle_settings(t.model().settings, o.given);
    // Of the text and of all settings it is known now that they are good: the other folders are taken before the work.
    for (std::size_t later = i + 1; later < runs.size(); ++later) folders[later].open();
    const train_result r = t.run();
    if (r.end == outcome::stopped) {
      std::printf("stopped by %s during %s, at step %d of %d; checkpoint: %s\n",
                  stop_signals::name_of(stop_signals::received()).c_str(), runs[i].rule.c_str(), r.step,
                  runs[i].iterations, t.checkpoint_path().c_str());
      return stopped_by(stop_signals::received());
    }
    if (r.end == outcome::diverged)
      std::fprintf(stderr, "%s diverged at step %d: %s\n", runs[i].rule.c_str(), r.step, r.why.c_str());
    any = any || r.end == outcome::done;
  }
  const std::string table = write_report(paths, o.out, cpu, analysis);
  std::printf("\n%s\nreport: %s\n", table.c_str(), page.c_str());
  return any ? exit_status::done : exit_status::diverged;
}

}  // namespace small_gpt
