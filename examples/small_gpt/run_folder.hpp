// The folder of one run: log.jsonl and checkpoint.safetensors. It belongs to one process at a time, which holds a lock
// on the log, and to one run: a fresh run does not go into a folder that holds another, unless it is told to replace
// that.
#pragma once
#include <matopt/core/error.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

namespace small_gpt {

// Of a run whose log or checkpoint is there already.
enum class existing_run { refuse, replace };

// The folder is another run's, or another process is writing into it.
struct folder_in_use : matopt::bad_file {
  using bad_file::bad_file;
};

class run_folder {
 public:
  run_folder(std::string path, existing_run what = existing_run::refuse);
  run_folder(run_folder&& other) noexcept;
  run_folder& operator=(run_folder&&) = delete;
  ~run_folder();

  // Makes the folder and takes it, for a fresh run or for one that goes on from `resumed`, a checkpoint. Throws, before
  // anything has changed, if the folder cannot be written, holds another run, or is in use by another process. When
  // called again it does nothing.
  void open(const std::string& resumed = "");

  // Takes the folder, and changes nothing of a run that it holds: to look into it, knowing that no other process
  // writes. Throws as open() does, but not because of another run.
  void claim();

  // A line of the log. Throws if it cannot be written as a whole.
  void log(const nlohmann::json& line);

  // The line with which the log begins, if it holds the settings of a run; else null.
  nlohmann::json header() const;
  // Empties the log, if what it holds may be replaced; else throws, with the reason `why` that the run needs it empty.
  void begin_anew(const std::string& why);
  // Seconds of training and seconds elapsed, by the log's line of that step; nothing if it has none.
  std::optional<std::pair<double, double>> times_at(int step) const;

  // Keeps the checkpoint, which is of that step, beside those to come: as checkpoint-00000500.safetensors.
  void keep_checkpoint(int step) const;
  // Removes kept checkpoints such that about two remain per factor of two of age, counted in intervals from `step`.
  void thin_checkpoints(int step, int interval) const;

  const std::string& path() const { return path_; }
  std::string log_path() const { return path_ + "/log.jsonl"; }
  std::string checkpoint_path() const { return path_ + "/checkpoint.safetensors"; }

 private:
  void refuse_other_run() const;

  std::string path_;
  existing_run what_;
  int log_ = -1;
  bool open_ = false;
};

}  // namespace small_gpt
