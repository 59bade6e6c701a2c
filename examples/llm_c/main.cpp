// llm.c's memory on the CPU.
#include <matopt/eigen.hpp>

#include "run.hpp"

int main() {
  matopt::eigen_backend cpu;
  return llm_c::run(cpu);
}
