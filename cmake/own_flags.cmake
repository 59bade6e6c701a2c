# Flags of the project's own programs. None of them is on a target that a consumer links.
add_library(matopt_own_flags INTERFACE)
option(MATOPT_WERROR "Warnings of matopt's own programs and tests are errors" ON)
target_compile_options(matopt_own_flags INTERFACE -Wall -Wextra -Wconversion $<$<BOOL:${MATOPT_WERROR}>:-Werror>)
# g++ collects its garbage early and often, which takes a tenth of the time here; not before it has half a gigabyte.
target_compile_options(matopt_own_flags INTERFACE
                       $<$<COMPILE_LANG_AND_ID:CXX,GNU>:--param=ggc-min-heapsize=524288>)
# What may differ from machine to machine: examples and benchmarks are meant to be fast where they are built.
add_library(matopt_fast_flags INTERFACE)
# Not for nvcc, which knows none of these.
target_compile_options(matopt_fast_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 warns of its own headers here: undefined operands inside AVX-512 intrinsics (GCC bug 105593), and copies inside
  # std::string (105651).
  target_compile_options(matopt_fast_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wno-uninitialized;-Wno-maybe-uninitialized;-Wno-restrict>")
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # clang 19 warns of what it makes of -march=native itself on processors with AVX10.
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag("-Werror -Winvalid-feature-combination" MATOPT_WARNS_OF_FEATURES)
  if(MATOPT_WARNS_OF_FEATURES)
    target_compile_options(matopt_fast_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-invalid-feature-combination>)
  endif()
endif()
if(MATOPT_NATIVE)
  target_compile_options(matopt_fast_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()
find_program(MATOPT_CCACHE ccache)
if(MATOPT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MATOPT_CCACHE})
endif()
