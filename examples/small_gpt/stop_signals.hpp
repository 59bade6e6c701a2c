// Signals that ask a training to stop: the first one ends it after its current step, with a checkpoint, and a second
// one ends the process at once. A signal that was ignored when the program started (nohup, a shell's background job)
// stays ignored. Outside the life of a stop_signals object every signal does what it does to any program.
#pragma once
#include <array>
#include <csignal>
#include <cstddef>
#include <string>

namespace small_gpt {

class stop_signals {
 public:
  struct kind {
    int number;
    const char* name;
  };
  // Those of a terminal, those that batch systems send before they kill, and the limit of processor time.
  static constexpr std::array<kind, 6> all{{{SIGINT, "SIGINT"},
                                            {SIGTERM, "SIGTERM"},
                                            {SIGHUP, "SIGHUP"},
                                            {SIGUSR1, "SIGUSR1"},
                                            {SIGUSR2, "SIGUSR2"},
                                            {SIGXCPU, "SIGXCPU"}}};

  stop_signals() {
    struct sigaction action {};
    action.sa_handler = &on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < all.size(); ++i) {
      ::sigaction(all[i].number, nullptr, &before_[i]);
      if (before_[i].sa_handler != SIG_IGN) ::sigaction(all[i].number, &action, nullptr);
    }
  }
  stop_signals(const stop_signals&) = delete;
  stop_signals& operator=(const stop_signals&) = delete;
  ~stop_signals() {
    for (std::size_t i = 0; i < all.size(); ++i) ::sigaction(all[i].number, &before_[i], nullptr);
  }

  // The number of the signal that asked to stop; 0 if none did.
  static int received() { return first_; }
  static std::string name_of(int number) {
    for (const kind& k : all)
      if (k.number == number) return k.name;
    return "signal " + std::to_string(number);
  }

 private:
  static void on_signal(int number) {
    if (first_ == 0) {
      first_ = number;
    } else if (number != SIGXCPU) {  // which comes again every second until its hard limit
      std::signal(number, SIG_DFL);
      std::raise(number);  // is delivered when this returns
    }
  }

  static inline volatile std::sig_atomic_t first_ = 0;
  std::array<struct sigaction, all.size()> before_{};
};

}  // namespace small_gpt
