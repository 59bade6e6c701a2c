// The program as a function, for a program of one's own that brings rules of its own:
//
//   int main(int argc, char** argv) {
//     return small_gpt::run(argc, argv, small_gpt::rules().add<my_rule>("mine"));
//   }
//
// my_rule is any rule of the library (docs/writing-a-policy.md); `--rule mine`, `--set` and the rules' list know it.
#pragma once
#include "rules.hpp"

namespace small_gpt {

// Does what the arguments say; returns the exit status (exit_status.hpp). Throws nothing.
int run(int argc, char** argv, const rule_book& book = rules());

// The command that run() was called with, quoted for a shell; for the log.
const std::string& command_line();

}  // namespace small_gpt
