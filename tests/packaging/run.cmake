# cmake -DCASE=... -DMATOPT_SOURCE=... -DWORK=... -DGENERATOR=... -DCOMPILER=... [-DLAUNCHER=...] -P run.cmake
#
#   install             installs the library without Eigen in sight, and moves the tree: both must make no difference
#   installed           find_package with the eigen component, built and run
#   core_only           find_package without components where no package can be found: configured, built and run
#   missing_eigen       the eigen component where there is no Eigen: a clear error
#   unknown_component   a component that does not exist: a clear error
#   optional_component  an optional component that cannot be had leaves the package found
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

# Configuring the consumer `component` must fail and say `text`.
function(refuse text)
  execute_process(COMMAND ${configure} -S ${CMAKE_CURRENT_LIST_DIR}/component -DCMAKE_PREFIX_PATH=${prefix} ${ARGN}
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(result EQUAL 0)
    message(FATAL_ERROR "configured, but should have failed with: ${text}")
  endif()
  string(REGEX REPLACE "[ \n]+" " " flat "${output}") # CMake breaks the lines of its messages
  string(FIND "${flat}" "${text}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "failed, but did not say \"${text}\":\n${output}")
  endif()
endfunction()

if(CASE STREQUAL "install")
  file(REMOVE_RECURSE ${prefix} ${WORK}/first)
  run(${configure} -S ${MATOPT_SOURCE} -DMATOPT_EXAMPLES=OFF -DMATOPT_TESTS=OFF ${no_packages})
  run(${CMAKE_COMMAND} --install ${build} --prefix ${WORK}/first)
  file(RENAME ${WORK}/first ${prefix})
elseif(CASE STREQUAL "installed")
  use(installed -DCMAKE_PREFIX_PATH=${prefix})
elseif(CASE STREQUAL "core_only")
  use(core_only -DCMAKE_PREFIX_PATH=${prefix} ${no_packages})
elseif(CASE STREQUAL "missing_eigen")
  refuse("matopt: component \"eigen\" needs Eigen 3.4" -DCOMPONENT=eigen ${no_packages})
elseif(CASE STREQUAL "unknown_component")
  refuse("matopt: component \"fortran\" is not known; components: eigen, io" -DCOMPONENT=fortran)
elseif(CASE STREQUAL "optional_component")
  run(${configure} -S ${CMAKE_CURRENT_LIST_DIR}/component -DCMAKE_PREFIX_PATH=${prefix} -DOPTIONAL=eigen ${no_packages})
elseif(CASE STREQUAL "fetch_content" OR CASE STREQUAL "add_subdirectory")
  use(${CASE} -DMATOPT_SOURCE=${MATOPT_SOURCE})
else()
  message(FATAL_ERROR "no case \"${CASE}\"")
endif()
