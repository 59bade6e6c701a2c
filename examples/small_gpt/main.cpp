// small_gpt: trains a small GPT with any rule of the library, samples from it, looks into it, compresses it, compares
// rules.
#include "command_line.hpp"

int main(int argc, char** argv) { return small_gpt::run(argc, argv); }
