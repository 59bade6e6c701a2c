# The library's targets. They carry the include path, C++20 and their links, and nothing else: no flags reach a consumer.
#   matopt::matopt   core, policies and rules; needs nothing
#   matopt::eigen    and the CPU backend; needs Eigen 3.4 and threads. Where Highway (hwy) is found, products run on kernels
#                    of the library's own: matopt_simd, one source file compiled once. MATOPT_HIGHWAY=OFF leaves it out.
#   matopt::io       and checkpoints (safetensors); needs nlohmann_json
#   matopt::torch    and what the adapter for PyTorch needs: matopt::eigen and libtorch
#   matopt::cuda     and the GPU backend, for files that nvcc compiles; needs the CUDA toolkit
# A target whose packages are not found here is left out; matopt_<component>_reason then says why. matopt-config.cmake.in says the
# same for an installed tree.
include(GNUInstallDirs)
include(${CMAKE_CURRENT_LIST_DIR}/packages.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/simd.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/cuda_toolkit.cmake)

add_library(matopt INTERFACE)
add_library(matopt::matopt ALIAS matopt)
target_compile_features(matopt INTERFACE cxx_std_20)
target_include_directories(matopt INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# matopt_target(component links...): the target, or the message that it is left out.
function(matopt_target component reason)
  set(matopt_${component}_reason "${reason}" PARENT_SCOPE)
  if(reason)
    message(STATUS "matopt: no target matopt::${component}: ${reason}")
    return()
  endif()
  add_library(matopt_${component} INTERFACE)
  add_library(matopt::${component} ALIAS matopt_${component})
  target_link_libraries(matopt_${component} INTERFACE matopt ${ARGN})
endfunction()

# The project around this one may have brought a dependency along already.
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 3.4 QUIET NO_MODULE)
endif()
matopt_check_headers(Eigen VERSION 3.4 TARGET Eigen3::Eigen DEBIAN libeigen3-dev HEADER Eigen/Core)
find_package(Threads QUIET)
if(NOT TARGET Threads::Threads AND NOT matopt_Eigen_reason)
  set(matopt_Eigen_reason "FindThreads found no threads")
endif()
matopt_target(eigen "${matopt_Eigen_reason}" Eigen3::Eigen Threads::Threads)
if(TARGET matopt_eigen)
  matopt_add_simd(matopt_simd ${PROJECT_SOURCE_DIR}/include)
  if(TARGET matopt_simd)
    target_link_libraries(matopt_eigen INTERFACE matopt_simd)
  endif()
  include(${CMAKE_CURRENT_LIST_DIR}/compiled.cmake)
  matopt_add_compiled(matopt_compiled ${PROJECT_SOURCE_DIR}/include)
  add_library(matopt::compiled ALIAS matopt_compiled)
endif()

if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3 QUIET)
endif()
matopt_check_headers(nlohmann_json VERSION 3 TARGET nlohmann_json::nlohmann_json DEBIAN nlohmann-json3-dev
                     HEADER nlohmann/json.hpp)
matopt_target(io "${matopt_nlohmann_json_reason}" nlohmann_json::nlohmann_json)

include(${CMAKE_CURRENT_LIST_DIR}/torch.cmake)
if(TARGET matopt_torch AND NOT TARGET matopt::torch)
  add_library(matopt::torch ALIAS matopt_torch)
endif()

if(MATOPT_CUDA OR NOT PROJECT_IS_TOP_LEVEL)
  matopt_find_cuda()
  matopt_target(cuda "${matopt_CUDA_reason}" CUDA::cudart CUDA::cublas CUDA::cublasLt)
endif()
if(TARGET matopt_cuda)
  target_compile_options(matopt_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
  matopt_check_cuda_architectures()
endif()
