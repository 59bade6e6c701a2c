# matopt_torch: what the adapter for PyTorch links, or matopt_torch_reason, which says why it cannot be had. Used by the project
# and by the package that it installs.
#
# Only libtorch's headers and libraries are looked for: its own CMake files ask for all that it was built with, a CUDA toolkit among
# it, or are broken (Debian's). MATOPT_TORCH names the folder that has include/ and lib/, such as site-packages/torch of a virtual
# environment; without it the system's is taken. Tensors on a GPU need torch_cuda and c10_cuda besides.
set(MATOPT_TORCH "" CACHE PATH "The folder of libtorch that has include/ and lib/; empty: the system's, if there is one")
mark_as_advanced(MATOPT_TORCH)
set(Torch_ROOT ${MATOPT_TORCH})
set(matopt_torch_libraries "")
set(matopt_torch_reason "")
foreach(library IN ITEMS torch torch_cpu c10)
  matopt_find(Torch_${library} TARGET Torch::${library} DEBIAN libtorch-dev HEADER ATen/ATen.h LIBRARY ${library})
  list(APPEND matopt_torch_libraries ${matopt_Torch_${library}_link})
  if(matopt_Torch_${library}_reason)
    set(matopt_torch_reason "${matopt_Torch_${library}_reason}; MATOPT_TORCH names its folder")
  endif()
endforeach()
if(NOT TARGET matopt::eigen)
  set(matopt_torch_reason "it needs the component eigen")
endif()
set(matopt_torch_link "")
if(NOT matopt_torch_reason)
  set(matopt_torch_link matopt_torch)
  if(NOT TARGET matopt_torch)
    add_library(matopt_torch INTERFACE)
    target_link_libraries(matopt_torch INTERFACE matopt::eigen ${matopt_torch_libraries})
    # For <torch/torch.h>; the adapter needs ATen and c10 only.
    target_include_directories(matopt_torch SYSTEM INTERFACE ${MATOPT_Torch_torch_INCLUDE}/torch/csrc/api/include)
  endif()
endif()
