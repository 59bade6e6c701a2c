// A library for LD_PRELOAD: it ends the process, or lets a call fail, at a chosen call of the file system. scripts/reliability
// compiles it.
//
//   MATOPT_FAULT_CALL   write (to a temporary file of atomic_file), fsync or rename
//   MATOPT_FAULT_AT     at which of these calls, counted from 1
//   MATOPT_FAULT_DO     before, half (of the bytes of a write), after: the process is killed there. A number: this call and all
//                       later ones of its kind fail with that errno
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls;

// 0: the call is an ordinary one; 1: it is the chosen one; an errno, below 0: it has to fail.
static int chosen(const char* call) {
  const char *wanted = getenv("MATOPT_FAULT_CALL"), *at = getenv("MATOPT_FAULT_AT"), *act = getenv("MATOPT_FAULT_DO");
  if (!wanted || !at || !act || strcmp(wanted, call) != 0) return 0;
  const int n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (act[0] >= '0' && act[0] <= '9') return n >= atoi(at) ? -atoi(act) : 0;
  return n == atoi(at);
}
static int acts(const char* when) { return strcmp(getenv("MATOPT_FAULT_DO"), when) == 0; }
static void end(void) { kill(getpid(), SIGKILL); }

ssize_t write(int descriptor, const void* data, size_t bytes) {
  static ssize_t (*real)(int, const void*, size_t);
  if (!real) real = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  const int what = strstr(path, ".tmp.") ? chosen("write") : 0;
  if (what < 0) return errno = -what, -1;
  if (what && acts("before")) end();
  const ssize_t done = real(descriptor, data, what && acts("half") ? bytes / 2 : bytes);
  if (what) end();
  return done;
}

int fsync(int descriptor) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  const int what = chosen("fsync");
  if (what < 0) return errno = -what, -1;
  if (what && acts("before")) end();
  const int result = real(descriptor);
  if (what) end();
  return result;
}

int rename(const char* from, const char* to) {
  static int (*real)(const char*, const char*);
  if (!real) real = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
  const int what = chosen("rename");
  if (what < 0) return errno = -what, -1;
  if (what && acts("before")) end();
  const int result = real(from, to);
  if (what) end();
  return result;
}
