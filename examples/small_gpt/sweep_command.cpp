// The command `sweep`.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "analysis.hpp"
#include "commands.hpp"
#include "files.hpp"
#include "stop_signals.hpp"
#include "sweep.hpp"
#include "toml.hpp"
#include "trainer.hpp"

namespace small_gpt {

namespace {

struct known_run {
  std::string folder;
  bool finished;
  double loss;  // of a finished one
};

// All runs below a folder by what makes them the same run. Those that are finished are read once.
class run_index {
 public:
  explicit run_index(std::string folder, std::string text) : folder_(std::move(folder)), text_(std::move(text)) {}

  void look() {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder_, none)) {
      const std::string path = entry.path().string();
      if (finished_.contains(path) || !std::filesystem::exists(path + "/log.jsonl", none)) continue;
      if (std::filesystem::file_size(path + "/log.jsonl", none) == 0) continue;
      run_record r;
      try {
        r = run_record::read(path);
      } catch (const matopt::error& e) {  // of a newer version, or cut off: another run
        if (unreadable_.insert(path).second) std::fprintf(stderr, "sweep: a run is not looked at: %s\n", e.what());
        continue;
      }
      if (const std::string text = r.header.value("text", ""); !text.empty() && text != text_) continue;
      const bool done = r.finished();
      const double loss =
          !done || !r.diverged.empty() ? std::numeric_limits<double>::infinity() : r.validations.back().loss;
      runs_[identity_of(r.effective)] = {path, done, loss};
      if (done) finished_.insert(path);
    }
  }
  const known_run* find(const run_settings& s) const {
    const auto at = runs_.find(identity_of(effective_settings(s)));
    return at == runs_.end() ? nullptr : &at->second;
  }

 private:
  std::string folder_, text_;
  std::map<std::string, known_run> runs_;
  std::set<std::string> finished_, unreadable_;
};

// Whether a checkpoint is of that run, and not of one whose folder it took over.
bool is_of(const std::string& checkpoint, const run_settings& s) try {
  const auto file = matopt::tensor_file::load(checkpoint);
  const auto settings = nlohmann::json::parse(metadata(file, "small_gpt.settings"), nullptr, false);
  return identity_of(effective_settings(from_checked_json(settings))) == identity_of(effective_settings(s));
} catch (const matopt::error& e) {  // cut off, or edited: nothing to go on from
  std::fprintf(stderr, "sweep: the run begins anew: %s\n", e.what());
  return false;
}

// A folder for a new run: with a readable name, and a number if runs with other settings have that name.
std::string new_folder(const std::string& out, const std::string& label) {
  std::string path = out + "/" + label;
  std::error_code none;
  for (int i = 2;
       std::filesystem::exists(path + "/log.jsonl", none) && std::filesystem::file_size(path + "/log.jsonl", none) > 0;
       ++i)
    path = out + "/" + label + ",run=" + std::to_string(i);
  return path;
}

}  // namespace

exit_status sweep(const options& o, matopt::eigen_backend& cpu) {
  sweep_plan plan = sweep_plan::from_json(read_toml(o.checkpoint));
  if (o.out_given) plan.out = o.out;
  if (plan.out.empty()) throw matopt::bad_value("out", "\"\"", "the name of a folder, in the sweep or with --out");
  for (auto& c : plan.configurations) {
    if (!o.data.empty()) c.settings.data = o.data;
    if (!o.run.device.empty()) c.settings.device = o.run.device;
    if (c.settings.data.empty())
      throw matopt::bad_value("data", "\"\"", "a text, in [settings] of the sweep or with --data");
    if (c.settings.data != plan.configurations.front().settings.data)
      throw matopt::bad_value("data", "several texts", "one text for all runs of a sweep");
  }
  const source_of_tokens source(plan.configurations.front().settings.data);
  for (const auto& c : plan.configurations)
    if (!source.shards) refuse_shards(c.settings);
  if (source.shards)  // whose vocabulary is theirs
    for (auto& c : plan.configurations) {
      const vocabulary words = source.fresh_vocabulary(c.settings);
      source.settle_vocabulary(c.settings, words, c.given);
    }
  std::set<std::string> idle;
  for (const auto& c : plan.configurations)
    for (const std::string& line : without_effect(c.settings, c.given))
      if (idle.insert(line).second) std::fprintf(stderr, "note: %s\n", line.c_str());
  if (plan.compression) plan.compression->data = plan.configurations.front().settings.data;
  run_index index(plan.out, source.digest);
  int trained = 0;
  std::set<std::string> compressed;       // or found to be impossible to compress
  std::set<std::string> in_use, doubled;  // folders, and labels, of which that was said
  for (;;) {
    index.look();
    // What is known, for the plan to say what is missing.
    std::vector<sweep_plan::losses> known(plan.configurations.size());
    const auto jobs_of = [&] {
      // A grid's or search's rates become known as the plan asks for them.
      for (;;) {
        bool news = false;
        std::vector<run_settings> missing;
        for (const run_settings& s : plan.needed(known)) {
          const known_run* run = index.find(s);
          if (!run || !run->finished) {
            missing.push_back(s);
            continue;
          }
          auto is_one_of = is_run_of(s);
          for (std::size_t i = 0; i < known.size(); ++i)
            if (is_one_of(plan.configurations[i])) known[i][s.lr][s.seed] = run->loss, news = true;
        }
        if (!news) return missing;
      }
    };
    std::vector<run_settings> jobs;
    std::map<std::string, std::string> labels;  // of these, by what makes them the same run
    for (run_settings& s : jobs_of()) {
      const std::string label = plan.label_of(s);
      const auto [at, fresh] = labels.emplace(identity_of(effective_settings(s)), label);
      if (fresh)
        jobs.push_back(std::move(s));
      else if (doubled.insert(label).second)
        std::fprintf(stderr, "note: %s is asked for twice, and trained once%s\n", label.c_str(),
                     at->second == label ? "" : (", as " + at->second).c_str());
    }
    if (plan.compression && !o.dry_run)
      for (const run_settings& s : plan.to_compress(known)) {
        const std::string folder = index.find(s)->folder;
        if (compressed.contains(folder)) continue;
        try {
          run_folder place(folder, existing_run::replace);
          place.claim();
          const run_record record = run_record::read(folder);
          if (known_analysis(record, *plan.compression).is_null())
            std::fprintf(stderr, "--- %s: its model compressed\n", plan.label_of(s).c_str());
          analysis_of(record, cpu, *plan.compression);
          compressed.insert(folder);
        } catch (const folder_in_use&) {  // another process is at it
        }
      }
    if (jobs.empty()) break;
    if (o.dry_run) {
      for (const auto& s : jobs) std::printf("%s\n", plan.label_of(s).c_str());
      return exit_status::done;
    }
    bool worked = false;
    for (const run_settings& s : jobs) {
      const known_run* run = index.find(s);
      const std::string folder = run ? run->folder : new_folder(plan.out, plan.label_of(s));
      const std::string checkpoint = folder + "/checkpoint.safetensors";
      try {
        run_folder place(folder, existing_run::replace);
        place.claim();
        index.look();  // another process may have begun or ended it since
        run = index.find(s);
        std::error_code none;
        const bool foreign = !run && std::filesystem::file_size(folder + "/log.jsonl", none) > 0;
        if (foreign || (run && (run->finished || run->folder != folder))) {
          if (std::filesystem::file_size(folder + "/log.jsonl", none) == 0) {  // made a moment ago, and not needed
            std::filesystem::remove(folder + "/log.jsonl", none);
            std::filesystem::remove(folder, none);
          }
          worked = true;
          break;
        }
        const bool goes_on = run && std::filesystem::exists(checkpoint) && is_of(checkpoint, s);
        std::fprintf(stderr, "--- %s (%zu known to be left)%s\n", plan.label_of(s).c_str(), jobs.size(),
                     goes_on ? ", continued" : "");
        trainer t = goes_on ? trainer(checkpoint, s.data, cpu, std::move(place)) : trainer(s, cpu, std::move(place));
        const train_result r = t.run();
        if (r.end == outcome::stopped) {
          std::printf("stopped by %s; the same command goes on with the sweep\n",
                      stop_signals::name_of(stop_signals::received()).c_str());
          return stopped_by(stop_signals::received());
        }
        ++trained;
        worked = true;
        break;
      } catch (const folder_in_use&) {
        if (in_use.insert(folder).second)
          std::fprintf(stderr, "--- %s: another process trains it\n", plan.label_of(s).c_str());
      }
    }
    if (!worked) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  std::printf("the sweep is complete: %d runs trained now, in \"%s\"\n", trained, plan.out.c_str());
  return exit_status::done;
}

}  // namespace small_gpt
