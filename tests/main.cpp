// The main program of every test. Catch2 2 compiles its own code here, too; Catch2 3 is a library.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
