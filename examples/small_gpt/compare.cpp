// The command `compare`: the same training with several rules, and the report on it.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "commands.hpp"
#include "plot.hpp"
#include "processor.hpp"
#include "report.hpp"
#include "stop_signals.hpp"

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
  for (const double k : o.keep) matopt::rank_for(k, 1, 1);
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

  comparison c;
  c.settings = o.run, c.processor = processor(), c.threads = cpu.threads(), c.keep = o.keep;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    std::fprintf(stderr, "--- %s\n", runs[i].rule.c_str());
    trainer t(runs[i], cpu, std::move(folders[i]));
    // Of the text and of all settings it is known now that they are good: the other folders are taken before the work.
    for (std::size_t later = i + 1; later < runs.size(); ++later) folders[later].open();

    comparison::entry e;
    e.training = t.run();
    if (e.training.end == outcome::stopped) {
      std::printf("stopped by %s during %s, at step %d of %d; checkpoint: %s\n",
                  stop_signals::name_of(stop_signals::received()).c_str(), runs[i].rule.c_str(), e.training.step,
                  runs[i].iterations, t.checkpoint_path().c_str());
      return stopped_by(stop_signals::received());
    }
    trained_model& m = t.model();
    e.settings = m.settings, e.signature = t.device().signature();
    if (e.diverged()) {
      std::fprintf(stderr, "%s diverged at step %d: %s\n", runs[i].rule.c_str(), e.training.step,
                   e.training.why.c_str());
    } else {
      e.matrices = inspect(m, cpu);
      const calibration inputs = calibration::of(m, o.calibration);
      e.plain = compress(m, cpu, inputs, method::svd, o.keep, m.settings.eval_windows);
      e.whitened = compress(m, cpu, inputs, method::whitened, o.keep, m.settings.eval_windows);
    }
    c.dense_bytes = static_cast<matopt::index_t>(m.model.weights().size()) * 4;
    c.settings.warmup = m.settings.warmup;
    c.entries.push_back(std::move(e));
  }
  const std::string table = table_of(c);
  write_json(c, json);
  write_page(c, page);
  write_file(text, table);
  std::printf("\n%s\nreport: %s\n", table.c_str(), page.c_str());
  const bool any = std::any_of(c.entries.begin(), c.entries.end(), [](const auto& e) { return !e.diverged(); });
  return any ? exit_status::done : exit_status::diverged;
}

}  // namespace small_gpt
