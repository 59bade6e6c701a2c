# matopt_add_simd(name include_dir): the library `name` with the kernels of products, unless Highway is missing or broken, which
# a message then says, or MATOPT_HIGHWAY is off. Used by the project itself and by the package it installs. What links it
# compiles with MATOPT_HIGHWAY; the kernels choose the processor's instructions at run time, so no flag for them is needed.
include(${CMAKE_CURRENT_LIST_DIR}/packages.cmake)

function(matopt_add_simd name include_dir)
  option(MATOPT_HIGHWAY "Products on the CPU by kernels written with Highway, if it is found" ON)
  if(NOT MATOPT_HIGHWAY)
    return()
  endif()
  matopt_find(Highway TARGET hwy::hwy DEBIAN libhwy-dev HEADER hwy/highway.h LIBRARY hwy)
  if(NOT matopt_Highway_link)
    message(STATUS "matopt: products on the CPU are left to Eigen: ${matopt_Highway_reason}")
    return()
  endif()
  add_library(${name} STATIC EXCLUDE_FROM_ALL ${include_dir}/matopt/simd/kernels.cpp)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_compile_definitions(${name} PUBLIC MATOPT_HIGHWAY MATOPT_SIMD_COMPILED)
  # In every configuration: without optimisation these kernels are a hundred times slower than none.
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-O3>)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${name} PRIVATE ${include_dir})
  target_link_libraries(${name} PUBLIC ${matopt_Highway_link})
endfunction()
