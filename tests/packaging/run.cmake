# cmake -DCASE=... -DMATOPT_SOURCE=... -DWORK=... -DGENERATOR=... -DCOMPILER=... [-DLAUNCHER=...] -P run.cmake
#
#   install             installs the library without Eigen in sight, and moves the tree: both must make no difference
#   installed           find_package with the eigen component, built and run
#   compiled            the compiled component: the same program takes its rule from the library, and does not link without it
#   pkg_config          without CMake: pkg-config's flags, and the program without run-time type information; the licence is there
#   single_header       scripts/single-header muon eigen: one file in place of the include path; and every other header, not compiled
#   core_only           find_package without components where no package can be found: configured, built and run
#   missing_eigen       the eigen component where there is no Eigen: a clear error
#   unknown_component   a component that does not exist: a clear error
#   optional_component  an optional component that cannot be had leaves the package found
#   broken_highway      the eigen component where Highway's library file is missing: built without Highway, and said so
#   broken_packages     the project where packages are broken: what needs them is left out in a line each, or an error if asked for
#   broken_nvcc         the project where nvcc does not work: the GPU programs are left out
#   demo_only           MATOPT_EXAMPLES=small_gpt configures that example and needs no package of the tests
#   cuda                find_package with the cuda component, compiled; needs -DCUDA_COMPILER=...
#   torch               find_package with the torch component, built and run; -DTORCH=... names libtorch's folder, if not the system's
#   cuda_architectures  warns where a program would not have the library's own kernels; needs -DCUDA_COMPILER=...
#   fetch_content       FetchContent on the checkout, built and run
#   add_subdirectory    the same with add_subdirectory
cmake_minimum_required(VERSION 3.22)
set(prefix ${WORK}/installed-tree)
set(build ${WORK}/${CASE})
set(no_packages -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
                -DCMAKE_DISABLE_FIND_PACKAGE_Threads=ON)
file(REMOVE_RECURSE ${build})

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "failed: ${command}\n${output}")
  endif()
endfunction()

set(configure ${CMAKE_COMMAND} -B ${build} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER}
              -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DCMAKE_BUILD_TYPE=Debug
              # a consumer that is as strict as the library itself
              "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wconversion -Werror")

# Configures, builds and runs the consumer in directory `name`.
function(use name)
  run(${configure} -S ${CMAKE_CURRENT_LIST_DIR}/${name} ${ARGN})
  run(${CMAKE_COMMAND} --build ${build})
  run(${build}/consumer)
endfunction()

# Configures with the arguments; sets `result` and `said`, what CMake prints, in one line because CMake breaks its messages.
function(try_to_configure)
  execute_process(COMMAND ${configure} ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(REGEX REPLACE "[ \n]+" " " output "${output}")
  set(said "${output}" PARENT_SCOPE)
  set(result ${result} PARENT_SCOPE)
endfunction()

# What CMake said must hold each text.
function(must_have_said)
  foreach(text IN LISTS ARGN)
    string(FIND "${said}" "${text}" at)
    if(at EQUAL -1)
      message(FATAL_ERROR "did not say \"${text}\":\n${said}")
    endif()
  endforeach()
endfunction()

# Configuring with the arguments must fail and say `text`.
function(refuse text)
  try_to_configure(${ARGN})
  if(result EQUAL 0)
    message(FATAL_ERROR "configured, but should have failed with: ${text}")
  endif()
  must_have_said(${text})
endfunction()
function(refuse_component text)
  refuse(${text} -S ${CMAKE_CURRENT_LIST_DIR}/component -DCMAKE_PREFIX_PATH=${prefix} ${ARGN})
endfunction()

# A prefix with packages that are no longer whole: Highway's, Catch2's and Google Benchmark's libraries are gone, as is the header
# of nlohmann_json; their CMake files are there, and those with a library stop the configuration, as they do in an installation.
# Nothing else is found beside them but Eigen.
set(broken ${WORK}/broken-${CASE})
function(break_packages)
  file(REMOVE_RECURSE ${broken})
  foreach(header hwy/highway.h catch2/catch_session.hpp benchmark/benchmark.h)
    file(WRITE ${broken}/include/${header} "")
  endforeach()
  foreach(package hwy Catch2 benchmark)
    foreach(name ${package}Config ${package}-config)
      file(WRITE ${broken}/lib/cmake/${package}/${name}.cmake
           "message(FATAL_ERROR \"The imported target ${package} references a file that does not exist.\")")
    endforeach()
  endforeach()
  file(WRITE ${broken}/lib/cmake/nlohmann_json/nlohmann_jsonConfig.cmake
       "add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
        target_include_directories(nlohmann_json::nlohmann_json INTERFACE ${broken}/include)")
  file(WRITE ${broken}/lib/cmake/nlohmann_json/nlohmann_jsonConfigVersion.cmake
       "set(PACKAGE_VERSION 3.11.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)")
endfunction()
set(only_broken -DEigen3_DIR=${EIGEN_DIR} -DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM} -DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF
                -DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=OFF -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON)

if(CASE STREQUAL "install")
  file(REMOVE_RECURSE ${prefix} ${WORK}/first)
  run(${configure} -S ${MATOPT_SOURCE} -DMATOPT_EXAMPLES=OFF -DMATOPT_TESTS=OFF ${no_packages})
  run(${CMAKE_COMMAND} --install ${build} --prefix ${WORK}/first)
  file(RENAME ${WORK}/first ${prefix})
elseif(CASE STREQUAL "installed")
  use(installed -DCMAKE_PREFIX_PATH=${prefix})
elseif(CASE STREQUAL "compiled")
  # Of the library what the consumer needs, neither optimised nor with debugging information: it takes a while.
  use(compiled -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE= -DMATOPT_COMPILED_TYPES=float)
  file(GLOB_RECURSE header ${prefix}/eigen.hpp)
  list(GET header 0 header)
  get_filename_component(include ${header} DIRECTORY)
  execute_process(COMMAND ${COMPILER} -std=c++20 -DMATOPT_COMPILED -DMATOPT_COMPILED_FLOAT -I${include}/.. -I${EIGEN_DIR}/../../../include/eigen3
                          ${CMAKE_CURRENT_LIST_DIR}/consumer.cpp -o ${build}/alone
                  RESULT_VARIABLE result ERROR_VARIABLE said OUTPUT_QUIET)
  if(result EQUAL 0 OR NOT said MATCHES "undefined reference to [^\n]*typed_rule")
    message(FATAL_ERROR "a program that leaves its rule to the library should not link without it:\n${said}")
  endif()
elseif(CASE STREQUAL "pkg_config")
  file(GLOB_RECURSE licences ${prefix}/LICENSE)
  if(NOT licences)
    message(FATAL_ERROR "no LICENSE is installed")
  endif()
  file(GLOB_RECURSE files ${prefix}/matopt-eigen.pc)
  list(GET files 0 file)
  get_filename_component(folder ${file} DIRECTORY)
  set(ENV{PKG_CONFIG_PATH} ${folder})
  execute_process(COMMAND ${PKG_CONFIG} --cflags --libs matopt-eigen OUTPUT_VARIABLE flags RESULT_VARIABLE result
                  ERROR_VARIABLE error OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "pkg-config failed: ${error}")
  endif()
  separate_arguments(flags UNIX_COMMAND "${flags}")
  file(MAKE_DIRECTORY ${build})
  run(${COMPILER} -std=c++20 -fno-rtti ${CMAKE_CURRENT_LIST_DIR}/consumer.cpp ${flags} -o ${build}/consumer)
  run(${build}/consumer)
  # A path with a space and with letters beyond ASCII, which pkgconf writes with backslashes: a shell reads them by eval.
  set(elsewhere "${build}/another plaçe")
  file(COPY ${prefix}/ DESTINATION ${elsewhere})
  file(RELATIVE_PATH below ${prefix} ${folder})
  set(ENV{PKG_CONFIG_PATH} "${elsewhere}/${below}")
  file(WRITE ${build}/version.cpp "#include <matopt/version.hpp>\nint main() {}\n")
  run(sh -c "eval \"${COMPILER} -std=c++20 -fsyntax-only ${build}/version.cpp $(${PKG_CONFIG} --cflags matopt)\"")
elseif(CASE STREQUAL "single_header")
  file(MAKE_DIRECTORY ${build})
  run(${PYTHON} ${MATOPT_SOURCE}/scripts/single-header muon eigen -o ${build}/one.hpp)
  # Two includes of it, and the program that elsewhere takes matopt's headers.
  file(READ ${CMAKE_CURRENT_LIST_DIR}/consumer.cpp program)
  string(REGEX REPLACE "#include <matopt/[^>]*>" "#include \"one.hpp\"" program "${program}")
  file(WRITE ${build}/consumer.cpp "${program}")
  get_filename_component(eigen ${EIGEN_DIR}/../../../include/eigen3 ABSOLUTE)
  run(${COMPILER} -std=c++20 -Wall -Wextra -Wconversion -Werror -isystem ${eigen} ${build}/consumer.cpp -pthread -o ${build}/consumer)
  run(${build}/consumer)
  # Every rule goes into one file, with nothing of the library left outside. That its headers compile, other tests say.
  file(GLOB headers RELATIVE ${MATOPT_SOURCE}/include/matopt ${MATOPT_SOURCE}/include/matopt/*.hpp)
  foreach(header IN LISTS headers)
    run(${PYTHON} ${MATOPT_SOURCE}/scripts/single-header ${header} eigen -o ${build}/one.hpp)
    file(STRINGS ${build}/one.hpp left REGEX "^ *# *include *(\"|<matopt)")
    if(left)
      message(FATAL_ERROR "single-header ${header}: ${left}")
    endif()
  endforeach()
elseif(CASE STREQUAL "core_only")
  use(core_only -DCMAKE_PREFIX_PATH=${prefix} ${no_packages})
elseif(CASE STREQUAL "missing_eigen")
  refuse_component("matopt: component \"eigen\": Eigen 3.4 was not found (Debian: libeigen3-dev)" -DCOMPONENT=eigen ${no_packages})
elseif(CASE STREQUAL "unknown_component")
  refuse_component("matopt: component \"fortran\": no such component; there are eigen, io, torch and cuda" -DCOMPONENT=fortran)
elseif(CASE STREQUAL "optional_component")
  run(${configure} -S ${CMAKE_CURRENT_LIST_DIR}/component -DCMAKE_PREFIX_PATH=${prefix} -DOPTIONAL=eigen ${no_packages})
elseif(CASE STREQUAL "broken_highway")
  break_packages()
  set(ENV{CMAKE_PREFIX_PATH} ${broken})
  try_to_configure(-S ${CMAKE_CURRENT_LIST_DIR}/installed -DCMAKE_PREFIX_PATH=${prefix} ${only_broken})
  must_have_said("matopt: products on the CPU are left to Eigen: Highway is broken:"
                 "but not the library hwy (Debian: reinstall libhwy-dev)")
  run(${CMAKE_COMMAND} --build ${build})
  run(${build}/consumer)
elseif(CASE STREQUAL "broken_packages")
  break_packages()
  set(project -S ${MATOPT_SOURCE} -DCMAKE_PREFIX_PATH=${broken} ${only_broken} -DMATOPT_BENCH=ON)
  try_to_configure(${project})
  must_have_said("matopt: products on the CPU are left to Eigen: Highway is broken:"
                 "matopt: no target matopt::io: nlohmann_json is broken: there is no nlohmann/json.hpp in"
                 "matopt: no target matopt::cuda: the CUDA toolkit was not found"
                 "matopt: tests left out: Catch2 is broken:"
                 "matopt: example small_gpt left out: nlohmann_json is broken:"
                 "matopt: example associative_memory left out: CLI11 was not found (Debian: libcli11-dev)"
                 "matopt: benchmarks other than small_gpt_bench left out: benchmark is broken:")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "did not configure:\n${said}")
  endif()
  refuse("matopt: tests cannot be built: Catch2 is broken:" ${project} -DMATOPT_TESTS=ON)
  refuse("matopt: example small_gpt cannot be built: nlohmann_json is broken:" ${project} -DMATOPT_TESTS=OFF -DMATOPT_EXAMPLES=ON)
  refuse("matopt: GPU programs cannot be built: the CUDA toolkit was not found" ${project} -DMATOPT_CUDA=ON)
elseif(CASE STREQUAL "broken_nvcc")
  file(WRITE ${WORK}/broken-nvcc/nvcc "#!/bin/sh\nexit 1\n")
  file(CHMOD ${WORK}/broken-nvcc/nvcc PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  set(ENV{CUDACXX} ${WORK}/broken-nvcc/nvcc)
  try_to_configure(-S ${MATOPT_SOURCE} -DMATOPT_EXAMPLES=minimal_eigen -DMATOPT_TESTS=OFF)
  # Newer releases of CMake do not even find the toolkit then.
  if(NOT result EQUAL 0 OR NOT said MATCHES "matopt: (GPU programs left out|no target matopt::cuda): ")
    message(FATAL_ERROR "did not configure, or did not say what is left out:\n${said}")
  endif()
elseif(CASE STREQUAL "demo_only")
  set(project -S ${MATOPT_SOURCE} -DMATOPT_CUDA=OFF)
  try_to_configure(${project} -DMATOPT_EXAMPLES=small_gpt -DMATOPT_TESTS=OFF -DMATOPT_Catch2_2_INCLUDE=${WORK}/no-catch)
  file(STRINGS ${build}/CMakeCache.txt found REGEX "Catch2|Python3|CUDA_COMPILER|CUDAToolkit")
  list(FILTER found EXCLUDE REGEX "^MATOPT_Catch2_2_INCLUDE:")
  if(NOT result EQUAL 0 OR found OR NOT IS_DIRECTORY ${build}/examples/small_gpt OR IS_DIRECTORY ${build}/examples/replay)
    message(FATAL_ERROR "configured more than the demo, or failed: ${found}\n${said}")
  endif()
  refuse("matopt: MATOPT_EXAMPLES names \"small_gtp\", which is no example; there are minimal_eigen" ${project} -DMATOPT_EXAMPLES=small_gtp)
elseif(CASE STREQUAL "cuda")
  # The program is not run, so it may be compiled as fast as can be.
  run(${configure} -S ${CMAKE_CURRENT_LIST_DIR}/cuda -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_CUDA_COMPILER=${CUDA_COMPILER}
      -DCMAKE_CUDA_ARCHITECTURES=90a "-DCMAKE_CUDA_FLAGS=-O0 -Xcicc=-O0 -Xptxas=-O0")
  run(${CMAKE_COMMAND} --build ${build})
elseif(CASE STREQUAL "torch")
  use(torch -DCMAKE_PREFIX_PATH=${prefix} -DMATOPT_TORCH=${TORCH} -DMATOPT_SOURCE=${MATOPT_SOURCE} -DMATOPT_HIGHWAY=OFF
      -DCMAKE_BUILD_TYPE=)
elseif(CASE STREQUAL "cuda_architectures")
  set(consumer -S ${CMAKE_CURRENT_LIST_DIR}/cuda -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_CUDA_COMPILER=${CUDA_COMPILER})
  foreach(chosen "90a" "80 90a" "80")
    string(REPLACE " " ";" list "${chosen}")
    set(ENV{CUDAARCHS} "${list}") # what CMAKE_CUDA_ARCHITECTURES begins as
    try_to_configure(${consumer})
    if(NOT result EQUAL 0 OR said MATCHES "CUDA architectures of")
      message(FATAL_ERROR "${chosen}: failed, or warned for nothing:\n${said}")
    endif()
    file(REMOVE_RECURSE ${build})
  endforeach()
  foreach(chosen "90" "80 90-real")
    string(REPLACE " " ";" list "${chosen}")
    set(ENV{CUDAARCHS} "${list}")
    try_to_configure(${consumer})
    must_have_said("matopt: the CUDA architectures of consumer are ${chosen}, without 90a.")
    file(REMOVE_RECURSE ${build})
  endforeach()
  unset(ENV{CUDAARCHS})
  try_to_configure(${consumer} -DCMAKE_CUDA_ARCHITECTURES=90)
  must_have_said("matopt: the CUDA architectures of consumer are 90, without 90a.")
  file(REMOVE_RECURSE ${build})
  try_to_configure(${consumer})
  must_have_said("which nobody has chosen: it is the compiler's default. On an H100 or H200")
  file(REMOVE_RECURSE ${build})
  try_to_configure(${consumer} -DCMAKE_CUDA_ARCHITECTURES=90 -DPLAIN=ON)
  if(NOT result EQUAL 0 OR said MATCHES "CUDA architectures of")
    message(FATAL_ERROR "failed, or warned of a target that is meant to be so:\n${said}")
  endif()
elseif(CASE STREQUAL "fetch_content" OR CASE STREQUAL "add_subdirectory")
  use(${CASE} -DMATOPT_SOURCE=${MATOPT_SOURCE})
else()
  message(FATAL_ERROR "no case \"${CASE}\"")
endif()
