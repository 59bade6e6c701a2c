# The library's targets. They carry the include path, C++20 and their links, and nothing else: no flags reach a consumer.
#   matopt::matopt   core, policies and rules; needs nothing
#   matopt::eigen    and the CPU backend; needs Eigen 3.4 and threads. Where Highway (hwy) is found, products run on kernels
#                    of the library's own: matopt_simd, one source file compiled once. MATOPT_HIGHWAY=OFF leaves it out.
#   matopt::io       and checkpoints (safetensors); needs nlohmann_json
#   matopt::cuda     and the GPU backend, for files that nvcc compiles; needs the CUDA toolkit
# A target whose packages are not found here is left out. matopt-config.cmake.in says the same for an installed tree.
include(GNUInstallDirs)

add_library(matopt INTERFACE)
add_library(matopt::matopt ALIAS matopt)
target_compile_features(matopt INTERFACE cxx_std_20)
target_include_directories(matopt INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# The project around this one may have brought a dependency along already.
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 3.4 QUIET NO_MODULE)
endif()
find_package(Threads QUIET)
if(TARGET Eigen3::Eigen AND TARGET Threads::Threads)
  add_library(matopt_eigen INTERFACE)
  add_library(matopt::eigen ALIAS matopt_eigen)
  target_link_libraries(matopt_eigen INTERFACE matopt Eigen3::Eigen Threads::Threads)
  include(${CMAKE_CURRENT_LIST_DIR}/simd.cmake)
  matopt_add_simd(matopt_simd ${PROJECT_SOURCE_DIR}/include)
  if(TARGET matopt_simd)
    target_link_libraries(matopt_eigen INTERFACE matopt_simd)
  endif()
endif()

if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json QUIET)
endif()
if(TARGET nlohmann_json::nlohmann_json)
  add_library(matopt_io INTERFACE)
  add_library(matopt::io ALIAS matopt_io)
  target_link_libraries(matopt_io INTERFACE matopt nlohmann_json::nlohmann_json)
endif()

if(NOT TARGET CUDA::cudart AND TARGET Threads::Threads) # without threads FindCUDAToolkit stops the configuration
  find_package(CUDAToolkit QUIET)
endif()
if(TARGET CUDA::cudart AND TARGET CUDA::cublas AND TARGET CUDA::cublasLt)
  add_library(matopt_cuda INTERFACE)
  add_library(matopt::cuda ALIAS matopt_cuda)
  target_link_libraries(matopt_cuda INTERFACE matopt CUDA::cudart CUDA::cublas CUDA::cublasLt)
  target_compile_options(matopt_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
endif()
