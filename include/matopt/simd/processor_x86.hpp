// What an x86 processor, and the system on it, offer to products of bfloat16.
//
// SPDX-License-Identifier: MIT
#pragma once
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../version.hpp"

namespace MATOPT_NAMESPACE::simd::x86 {

struct cpuid_words {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
inline cpuid_words cpuid(unsigned leaf, unsigned part) {
  cpuid_words w;
  __get_cpuid_count(leaf, part, &w.a, &w.b, &w.c, &w.d);
  return w;
}

inline bool has_pairs() { return (cpuid(7, 1).a >> 5 & 1) != 0; }  // AVX512-BF16
// Intel's processors have one port for pairs, and two for float: a Sapphire Rapids took 1.7 times as long.
inline bool pairs_are_slow() { return cpuid(0, 0).b == signature_INTEL_ebx; }

inline bool has_tiles() {  // AMX-TILE and AMX-BF16
  const unsigned d = cpuid(7, 0).d;
  return (d >> 24 & 1) != 0 && (d >> 22 & 1) != 0;
}
// The tiles are 8 KiB of state per thread, which Linux gives to a process that asks for it.
inline bool may_use_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long request_permission = 0x1023, tile_data = 18;
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
#else
  return false;
#endif
}

}  // namespace MATOPT_NAMESPACE::simd::x86
#endif
