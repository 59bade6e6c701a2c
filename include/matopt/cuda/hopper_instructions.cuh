// The instructions of compute capability 9.0a that products are made of: barriers in shared memory, the tensor copy
// engine, and the warp group's multiply-add.
//
// Shared memory holds boxes of 64 elements (128 bytes) by any number of lines, swizzled: the 16-byte chunk c of line l
// lies at chunk c ^ (l mod 8). Boxes begin at multiples of 1024 bytes.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "../core/bfloat16.hpp"
#include "../core/float16.hpp"

// Device code for other targets is empty; the host does not launch it there.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MATOPT_SM90A_DEVICE 1
#endif

namespace MATOPT_NAMESPACE::cuda::hopper {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

#if defined(MATOPT_SM90A_DEVICE)

// --- barriers ---
__device__ inline void init_barrier(std::uint32_t barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ inline void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and lets the barrier wait for so many bytes of the copy engine besides.
__device__ inline void arrive_expecting(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Returns when the phase of this parity is over.
__device__ inline void wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// The kernel launched next may start where this one leaves room; it waits before it looks at memory.
__device__ inline void start_next_kernel() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void wait_for_last_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// The 128 threads of a warp group meet.
__device__ inline void meet(std::uint32_t id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }

// --- the copy engine; coordinates: along the line, line, matrix ---
__device__ inline void fetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ inline void load_box(std::uint32_t to, const CUtensorMap& map, int along, int line, int matrix,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
          "r"(to),
      "l"(&map), "r"(along), "r"(line), "r"(matrix), "r"(barrier)
      : "memory");
}
__device__ inline void store_box(std::uint32_t from, const CUtensorMap& map, int along, int line, int matrix) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(from),
               "r"(along), "r"(line), "r"(matrix)
               : "memory");
}
__device__ inline void close_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// The stores of this thread have read shared memory.
__device__ inline void wait_for_stores() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ inline void finish_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// What this thread wrote to shared memory is seen by the copy engine.
__device__ inline void publish_to_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- 8 x 8 blocks of 16-bit elements between registers and shared memory; lane l gives line l mod 8 of block l / 8 ---
__device__ inline void load_blocks(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
template <bool Transposed>
__device__ void store_blocks(std::uint32_t address, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                             std::uint32_t d) {
  if constexpr (Transposed)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b),
                 "r"(c), "r"(d)
                 : "memory");
}
template <class T>
__device__ std::uint32_t pack(float low, float high) {
  std::uint32_t both;
  if constexpr (std::is_same_v<T, float16>)
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <class T>
__device__ float2 unpack(std::uint32_t both) {
  T low, high;
  low.bits = static_cast<std::uint16_t>(both & 0xffffU), high.bits = static_cast<std::uint16_t>(both >> 16);
  return {static_cast<float>(low), static_cast<float>(high)};
}

// --- multiply-add of a warp group ---
// A box, or a row of boxes `between` bytes apart, as an operand. LinesAreK: a line of the box runs across the product
// (its number is k); otherwise a line runs along k.
template <bool LinesAreK>
__device__ std::uint64_t operand(std::uint32_t address, std::uint32_t between) {
  constexpr std::uint64_t swizzle_128 = std::uint64_t{1} << 62, eight_lines = std::uint64_t{1024 >> 4} << 32;
  const std::uint64_t leading = LinesAreK ? std::uint64_t{between >> 4} << 16 : std::uint64_t{1} << 16;
  return swizzle_128 | eight_lines | leading | ((address & 0x3ffffU) >> 4);
}
// How far 16 further k are in an operand.
template <bool LinesAreK>
inline constexpr std::uint64_t sixteen_k = (LinesAreK ? 16 * 128 : 16 * 2) >> 4;

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Open>
__device__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Open) : "memory");
}

#define MATOPT_SUM_4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define MATOPT_SUM_16(i) MATOPT_SUM_4(i), MATOPT_SUM_4(i + 4), MATOPT_SUM_4(i + 8), MATOPT_SUM_4(i + 12)
#define MATOPT_SUM_64(i) MATOPT_SUM_16(i), MATOPT_SUM_16(i + 16), MATOPT_SUM_16(i + 32), MATOPT_SUM_16(i + 48)
#define MATOPT_PRODUCT_64(type)                                                                                        \
  asm volatile(                                                                                                        \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"                                                               \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                                                     \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "    \
      "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, " \
      "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "               \
      "%64, %65, adds, 1, 1, %67, %68;\n}"                                                                             \
      : MATOPT_SUM_64(0)                                                                                               \
      : "l"(a), "l"(b), "r"(adds), "n"(ALinesAreK ? 1 : 0), "n"(BLinesAreK ? 1 : 0))
#define MATOPT_PRODUCT_128(type)                                                                                       \
  asm volatile(                                                                                                        \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %130, 0;\n"                                                              \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                                     \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "    \
      "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, " \
      "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, " \
      "%67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, " \
      "%89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, "  \
      "%109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
      "%127}, %128, %129, adds, 1, 1, %131, %132;\n}"                                                                  \
      : MATOPT_SUM_64(0), MATOPT_SUM_64(64)                                                                            \
      : "l"(a), "l"(b), "r"(adds), "n"(ALinesAreK ? 1 : 0), "n"(BLinesAreK ? 1 : 0))

// sum (64 x Columns) = A B, or += if adds; A is 64 x 16, B 16 x Columns. In sum[4 q + 2 h + e] thread t of the warp
// group has row 16 (t / 32) + (t mod 32) / 4 + 8 h, column 8 q + 2 (t mod 4) + e.
template <class T, int Columns, bool ALinesAreK, bool BLinesAreK>
__device__ void multiply_add(float (&sum)[Columns / 2], std::uint64_t a, std::uint64_t b, int adds) {
  static_assert(Columns == 128 || Columns == 256);
  if constexpr (Columns == 128 && std::is_same_v<T, float16>)
    MATOPT_PRODUCT_64("f16");
  else if constexpr (Columns == 128)
    MATOPT_PRODUCT_64("bf16");
  else if constexpr (std::is_same_v<T, float16>)
    MATOPT_PRODUCT_128("f16");
  else
    MATOPT_PRODUCT_128("bf16");
}

#undef MATOPT_PRODUCT_128
#undef MATOPT_PRODUCT_64
#undef MATOPT_SUM_64
#undef MATOPT_SUM_16
#undef MATOPT_SUM_4

// Moves registers from one warp group to another: the group that gives calls the first.
template <int Registers>
__device__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

#endif  // MATOPT_SM90A_DEVICE

}  // namespace MATOPT_NAMESPACE::cuda::hopper
