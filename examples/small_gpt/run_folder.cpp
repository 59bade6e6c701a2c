#include "run_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "files.hpp"
#include "text_format.hpp"

namespace small_gpt {

namespace {

using matopt::bad_file;

bool has_content(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0;
}

std::map<int, std::filesystem::path> kept_checkpoints(const std::string& folder) {
  std::map<int, std::filesystem::path> found;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    int step = 0, end = 0;
    const std::string name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), "checkpoint-%8d.safetensors%n", &step, &end) == 1 &&
        static_cast<std::size_t>(end) == name.size())
      found[step] = entry.path();
  }
  return found;
}

}  // namespace

run_folder::run_folder(std::string path, existing_run what) : path_(std::move(path)), what_(what) {}
run_folder::run_folder(run_folder&& other) noexcept
    : path_(std::move(other.path_)),
      what_(other.what_),
      log_(std::exchange(other.log_, -1)),
      open_(std::exchange(other.open_, false)) {}
run_folder::~run_folder() {
  if (log_ >= 0) ::close(log_);
}

void run_folder::refuse_other_run() const {
  const bool trained = has_content(checkpoint_path());
  if (!trained && !has_content(log_path())) return;
  throw folder_in_use(
      "the folder \"" + path_ + "\" holds a run already: " +
      (trained ? "to continue it, `small_gpt train --resume " + shell_word(checkpoint_path()) + "`; to" : "to") +
      " replace it, add --force; or name another folder with --out");
}

void run_folder::claim() {
  if (log_ >= 0) return;
  if (path_.empty()) throw matopt::bad_value("--out", "\"\"", "the name of a folder");
  std::error_code failure;
  std::filesystem::create_directories(path_, failure);
  if (!failure && !std::filesystem::is_directory(path_, failure) && !failure)
    failure = std::make_error_code(std::errc::not_a_directory);
  if (failure) throw bad_file("cannot make the folder \"" + path_ + "\": " + failure.message());
  require_writable_file("the checkpoint", checkpoint_path());

  const int log = ::open(log_path().c_str(), O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
  if (log < 0) throw bad_file("cannot write \"" + log_path() + "\": " + std::strerror(errno));
  run_folder guard(path_);  // closes the log if this throws
  guard.log_ = log;
  if (const std::string kind = other_than_file(log_path()); !kind.empty())
    throw bad_file("cannot write \"" + log_path() + "\": it is " + kind);
  // A file system without locks is used without them.
  if (::flock(log, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw folder_in_use("another process is writing into \"" + path_ +
                        "\": wait for it, or name another folder with --out");
  log_ = std::exchange(guard.log_, -1);
}

void run_folder::open(const std::string& resumed) {
  if (open_) return;
  if (path_.empty()) throw matopt::bad_value("--out", "\"\"", "the name of a folder");
  std::error_code failure;
  const bool goes_on = !resumed.empty() && std::filesystem::equivalent(resumed, checkpoint_path(), failure);
  const bool fresh = !goes_on && what_ == existing_run::refuse;
  if (fresh) refuse_other_run();
  claim();
  if (fresh) refuse_other_run();  // of a process that held the lock until now
  if (!goes_on && ::ftruncate(log_, 0) != 0)
    throw bad_file("cannot empty \"" + log_path() + "\": " + std::strerror(errno));
  open_ = true;
  if (goes_on) {  // a line that was cut off when its process was killed stays one of its own
    char last = '\n';
    if (const off_t size = ::lseek(log_, 0, SEEK_END);
        size > 0 && ::pread(log_, &last, 1, size - 1) == 1 && last != '\n')
      if (::write(log_, "\n", 1) != 1) throw bad_file("cannot write \"" + log_path() + "\": " + std::strerror(errno));
    return;
  }
  for (const auto& [step, file] : kept_checkpoints(path_)) std::filesystem::remove(file, failure);
  for (const char* derived : {"/steps.csv", "/measurements.csv", "/analysis.json", "/compressed.csv"})
    std::filesystem::remove(path_ + derived, failure);
}

nlohmann::json run_folder::header() const {
  std::ifstream log(log_path());
  std::string line;
  std::getline(log, line);
  nlohmann::json found = nlohmann::json::parse(line, nullptr, false);
  return found.is_object() && found.contains("settings") ? found : nlohmann::json();
}

void run_folder::begin_anew(const std::string& why) {
  if (what_ == existing_run::refuse)
    throw bad_file("\"" + log_path() + "\" " + why +
                   "; to begin it anew, add --force; or name another folder with --out");
  if (::ftruncate(log_, 0) != 0) throw bad_file("cannot empty \"" + log_path() + "\": " + std::strerror(errno));
}

std::optional<std::pair<double, double>> run_folder::times_at(int step) const {
  std::optional<std::pair<double, double>> times;
  std::ifstream log(log_path());
  for (std::string line; std::getline(log, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("loss") || j.value("step", nlohmann::json()) != step) continue;
    const auto seconds = j.find("seconds"), elapsed = j.find("elapsed");
    if (seconds != j.end() && elapsed != j.end() && seconds->is_number() && elapsed->is_number())
      times.emplace(seconds->get<double>(), elapsed->get<double>());
  }
  return times;
}

// A hard link, because a new checkpoint takes the name and leaves the old file alone; a copy where there are no links.
void run_folder::keep_checkpoint(int step) const {
  char name[48];
  std::snprintf(name, sizeof name, "/checkpoint-%08d.safetensors", step);
  const std::string kept = path_ + name;
  std::error_code failure;
  std::filesystem::remove(kept, failure);
  std::filesystem::create_hard_link(checkpoint_path(), kept, failure);
  if (failure) std::filesystem::copy_file(checkpoint_path(), kept, failure);
  if (failure) throw bad_file("cannot write \"" + kept + "\": " + failure.message());
}

void run_folder::thin_checkpoints(int step, int interval) const {
  for (const auto& [kept, file] : kept_checkpoints(path_)) {
    const int age = (step - kept) / interval;
    int spacing = 1;  // the largest power of two that is at most the age
    while (spacing <= age / 2) spacing *= 2;
    std::error_code failure;
    if (kept < step && kept / interval % spacing != 0) std::filesystem::remove(file, failure);
  }
}

void run_folder::log(const nlohmann::json& line) {
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  const off_t before = ::lseek(log_, 0, SEEK_END);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(log_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const std::string why = std::strerror(errno);
      if (::ftruncate(log_, before) != 0) {
      }  // half a line stays: there is no more that can be done
      throw bad_file("cannot write \"" + log_path() + "\": " + why);
    }
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace small_gpt
