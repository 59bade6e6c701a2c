// A library for LD_PRELOAD: five times a second a thread writes how many bytes malloc has given out and not got back, and how
// many it has from the system, to the file that MATOPT_HEAP_FILE names. scripts/reliability compiles it: what grows in there
// is a leak of the program or of a library that calls malloc, and what grows elsewhere is not.
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void* watch(void* path) {
  const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return NULL;
  for (;; usleep(200000)) {
    const struct mallinfo2 m = mallinfo2();
    char line[64];
    const int length = snprintf(line, sizeof line, "%20zu %20zu\n", m.uordblks + m.hblkhd, m.arena + m.hblkhd);
    if (pwrite(file, line, (size_t)length, 0) != length) return NULL;
  }
}

__attribute__((constructor)) static void begin(void) {
  pthread_t thread;
  char* path = getenv("MATOPT_HEAP_FILE");
  if (path && pthread_create(&thread, NULL, watch, path) == 0) pthread_detach(thread);
}
