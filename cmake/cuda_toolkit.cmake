# What the target matopt::cuda needs, and a warning where GPU programs will not get the library's own kernels. Used by the
# project itself and by the package that it installs.

# Sets matopt_CUDA_reason, which says what is wrong if the toolkit lacks what matopt::cuda links, and is empty otherwise.
macro(matopt_find_cuda)
  find_package(Threads QUIET)
  if(NOT TARGET CUDA::cudart AND TARGET Threads::Threads) # without threads FindCUDAToolkit stops the configuration
    find_package(CUDAToolkit QUIET)
  endif()
  set(matopt_CUDA_reason "")
  if(NOT TARGET CUDA::cudart)
    set(matopt_CUDA_reason "the CUDA toolkit was not found (Debian: nvidia-cuda-toolkit)")
  elseif(CUDAToolkit_VERSION AND CUDAToolkit_VERSION VERSION_LESS 12.4)
    set(matopt_CUDA_reason "the CUDA toolkit is of version ${CUDAToolkit_VERSION}, and 12.4 is the least")
  elseif(NOT TARGET CUDA::cublas OR NOT TARGET CUDA::cublasLt)
    set(matopt_CUDA_reason "the CUDA toolkit is broken: there is no cuBLAS in ${CUDAToolkit_LIBRARY_DIR}")
  endif()
endmacro()

# Warns, when all of the project has been read, of targets that are compiled for Hopper GPUs in a way that leaves out the
# kernels of the library's own, or for what CMake took because nobody chose. Targets with the property MATOPT_PLAIN_PRODUCTS are
# meant to be so.
function(matopt_check_cuda_architectures)
  get_property(wanted GLOBAL PROPERTY matopt_checks_cuda_architectures)
  if(NOT wanted)
    set_property(GLOBAL PROPERTY matopt_checks_cuda_architectures ON)
    cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL matopt_check_cuda_targets)
  endif()
endfunction()

function(matopt_check_cuda_targets)
  if(NOT CMAKE_CUDA_COMPILER)
    return()
  endif()
  # Where the choice was CMake's, so are the words in the cache.
  get_property(help CACHE CMAKE_CUDA_ARCHITECTURES PROPERTY HELPSTRING)
  set(default "")
  if(help STREQUAL "CUDA architectures" AND NOT DEFINED ENV{CUDAARCHS})
    set(default "$CACHE{CMAKE_CUDA_ARCHITECTURES}")
  endif()
  matopt_warn_of_cuda_targets(${CMAKE_SOURCE_DIR} "${default}")
endfunction()

function(matopt_warn_of_cuda_targets directory default)
  get_property(targets DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    get_target_property(links ${target} LINK_LIBRARIES)
    get_target_property(architectures ${target} CUDA_ARCHITECTURES)
    get_target_property(meant ${target} MATOPT_PLAIN_PRODUCTS)
    if(meant OR type MATCHES "INTERFACE|UTILITY" OR NOT architectures OR NOT links MATCHES "(^|;)matopt(::|_)cuda(;|$)")
      continue()
    endif()
    list(JOIN architectures " " words)
    if(architectures STREQUAL default)
      set(words "${words}, which nobody has chosen: it is the compiler's default")
    elseif(architectures MATCHES "(^|;)(90(-real|-virtual)?|all|all-major|native)(;|$)" AND
           NOT architectures MATCHES "(^|;)90a")
      set(words "${words}, without 90a")
    else()
      continue()
    endif()
    get_property(said GLOBAL PROPERTY matopt_warned_of_cuda_architectures)
    if(NOT words IN_LIST said)
      set_property(GLOBAL APPEND PROPERTY matopt_warned_of_cuda_architectures "${words}")
      message(WARNING "matopt: the CUDA architectures of ${target} are ${words}. On an H100 or H200 the program will not have "
                      "the library's own kernels, which need 90a, and takes cuBLAS instead. Set CMAKE_CUDA_ARCHITECTURES to "
                      "the GPU's architecture, 90a for those two, before the language CUDA is enabled.")
    endif()
  endforeach()
  get_property(below DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
  foreach(subdirectory IN LISTS below)
    matopt_warn_of_cuda_targets(${subdirectory} "${default}")
  endforeach()
endfunction()
