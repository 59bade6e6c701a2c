// How the program ends, for scripts and batch systems.
#pragma once

namespace small_gpt {

enum class exit_status : int {
  done = 0,
  failed = 1,         // bad input, an unreadable file, output that cannot be written; stderr says which
  usage = 2,          // the command line cannot be understood
  diverged = 3,       // the training diverged (divergence.hpp); the last good checkpoint is kept
  first_signal = 128  // 128 + n: stopped by signal n, with a checkpoint
};

constexpr exit_status stopped_by(int signal) {
  return static_cast<exit_status>(static_cast<int>(exit_status::first_signal) + signal);
}

}  // namespace small_gpt
