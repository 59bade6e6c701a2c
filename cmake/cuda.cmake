# The language CUDA for the project's own GPU programs, where there is a compiler for it. They take minutes to compile, so no
# default target has them:
#   cmake --build build --target gpu_programs
set(matopt_reason "${matopt_CUDA_reason}")
if(NOT matopt_reason AND NOT CMAKE_CUDA_COMPILER)
  if(NOT DEFINED ENV{CUDACXX} AND CUDAToolkit_NVCC_EXECUTABLE)
    set(ENV{CUDACXX} ${CUDAToolkit_NVCC_EXECUTABLE}) # the toolkit's bin/ is not always in the path
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(matopt_reason "no CUDA compiler that works was found (nvcc)")
  endif()
endif()
if(matopt_CUDA_reason AND MATOPT_CUDA STREQUAL "AUTO")
  set(MATOPT_CUDA OFF) # a message has said that there is no matopt::cuda, and why
  return()
elseif(matopt_reason)
  matopt_leave_out(MATOPT_CUDA "GPU programs" "${matopt_reason}")
  set(MATOPT_CUDA OFF)
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 90a)
endif()
enable_language(CUDA)
# /usr/include as -isystem would hide the C headers from the C++ ones.
list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
# matopt_cuda_flags says how much the compiler optimises; -O3 beside it would only draw a warning.
string(REPLACE "-O3" "" CMAKE_CUDA_FLAGS_RELEASE "${CMAKE_CUDA_FLAGS_RELEASE}")

# C++20 as a plain flag: CMake 3.25 does not know yet that nvcc has it. -O1 is for the host's part, which only launches; kernels
# are optimised in full, as a user's are.
add_library(matopt_cuda_flags INTERFACE)
target_compile_options(matopt_cuda_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -O1 -Xcompiler=-Wall>)

add_custom_target(gpu_programs)
