// One line of progress: redrawn in place on a terminal, a plain line now and then elsewhere.
#pragma once
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

namespace small_gpt {

// "12 s", "4 min 10 s", "2 h 05 min"
inline std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(seconds + 0.5);
  char text[48];
  if (s < 60)
    std::snprintf(text, sizeof text, "%d s", static_cast<int>(s));
  else if (s < 3600)
    std::snprintf(text, sizeof text, "%d min %02d s", static_cast<int>(s / 60), static_cast<int>(s % 60));
  else
    std::snprintf(text, sizeof text, "%lld h %02d min", static_cast<long long>(s / 3600),
                  static_cast<int>(s / 60 % 60));
  return text;
}

class progress {
 public:
  explicit progress(int total, int plain_interval)
      : total_(total), interval_(std::max(1, plain_interval)), terminal_(::isatty(STDERR_FILENO) != 0) {}
  ~progress() { clear(); }

  void show(int done, const std::string& text) {
    if (!terminal_) {
      if (done % interval_ == 0 || done == total_) std::fprintf(stderr, "%d/%d  %s\n", done, total_, text.c_str());
      return;
    }
    constexpr int width = 24;
    const int filled = total_ > 0 ? static_cast<int>(std::int64_t{done} * width / total_) : width;
    std::string line = "[" + std::string(static_cast<std::size_t>(filled), '=') +
                       std::string(static_cast<std::size_t>(width - filled), ' ') + "] " + std::to_string(done) + "/" +
                       std::to_string(total_) + "  " + text;
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) line = line.substr(0, size.ws_col - 1U);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
  }
  // Makes room for a line of ordinary output.
  void clear() const {
    if (terminal_) std::fputs("\r\033[K", stderr);
  }

 private:
  int total_, interval_;
  bool terminal_;
};

}  // namespace small_gpt
