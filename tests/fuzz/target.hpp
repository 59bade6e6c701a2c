// A fuzz target is a file with FUZZ(name) { ... }, a function of the bytes `data`, which returns for every input.
// Compiled with -fsanitize=fuzzer it is what libFuzzer calls (scripts/reliability fuzz). replay.cpp includes them all,
// and gives them the inputs of corpus/.
#pragma once
#include <unistd.h>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <matopt/core/error.hpp>
#include <string>
#include <string_view>

namespace fuzz {

using target = void (*)(std::string_view data);
#ifdef MATOPT_FUZZ_REPLAY
inline std::map<std::string, target>& targets() {
  static std::map<std::string, target> all;
  return all;
}
#define FUZZ(name)                                                        \
  static void name(std::string_view data);                                \
  static const bool name##_known = (fuzz::targets()[#name] = name, true); \
  static void name(std::string_view data)
#else
#define FUZZ(name)                                                                  \
  static void name(std::string_view data);                                          \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t n) { \
    name({reinterpret_cast<const char*>(bytes), n});                                \
    return 0;                                                                       \
  }                                                                                 \
  static void name(std::string_view data)
#endif

inline void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// A name for files of this process, in memory where the system has a file system there.
inline const std::string& place() {
  static const std::string& path = *new std::string(  // there until the process ends, for the line after it
      (::access("/dev/shm", W_OK) == 0 ? "/dev/shm/matopt-fuzz." : "/tmp/matopt-fuzz.") + std::to_string(::getpid()));
  return path;
}
inline void write(const std::string& path, std::string_view data) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(data.data(), static_cast<std::streamsize>(data.size()));
}
// A file with the input, for readers of files; one per process.
inline std::string file_with(std::string_view data) {
  static const bool removed_at_the_end = std::atexit([] { std::remove(place().c_str()); }) == 0;
  require(removed_at_the_end, "atexit");
  write(place(), data);
  return place();
}
// The same in a folder, for readers that know what their file is called.
inline std::string folder_with(const char* name, std::string_view data) {
  static const std::string& folder = *new std::string(place() + ".folder");
  static const bool removed_at_the_end = std::atexit([] { std::filesystem::remove_all(folder); }) == 0;
  require(removed_at_the_end, "atexit");
  std::filesystem::create_directories(folder);
  write(folder + '/' + name, data);
  return folder;
}

// What a reader refuses has to be one of the library's errors; anything else ends the process.
template <class Read>
void refuse_or(Read read) {
  try {
    read();
  } catch (const matopt::error& e) {
    require(e.what()[0] != 0, "an error without words");
  }
}

}  // namespace fuzz
