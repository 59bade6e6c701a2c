# The language CUDA for the project's own GPU programs. They take minutes to compile, so no default target has them:
#   cmake --build build --target gpu_programs
if(NOT TARGET matopt::cuda)
  message(FATAL_ERROR "matopt: MATOPT_CUDA needs the CUDA toolkit with cuBLAS; or configure with -DMATOPT_CUDA=OFF")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
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

# C++20 as a plain flag: CMake 3.25 does not know yet that nvcc has it. What these programs compute is right or wrong, not
# fast: little optimisation of the host's part, and of the kernels.
add_library(matopt_cuda_flags INTERFACE)
target_compile_options(matopt_cuda_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -O1 -Xptxas=-O1 -Xcompiler=-Wall>)

add_custom_target(gpu_programs)
