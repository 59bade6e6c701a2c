// The checks of the contract, but those that are about threads, the late backend and the CPU's mixed types; arguments,
// if there are any, choose others.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

int main(int argc, char** argv) {
  Catch::Session session;
  if (argc > 1) return session.run(argc, argv);
  const char* without_cpu[] = {argv[0], "~[threads]~[late]~[mixed]"};
  return session.run(2, without_cpu);
}
