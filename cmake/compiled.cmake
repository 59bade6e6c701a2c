# matopt_add_compiled(name include_dir): the library `name`, every published rule on the CPU in the element types that
# MATOPT_COMPILED_TYPES names. It is built where a target links it, and by nobody else. Used by the project itself and by the
# package it installs. What links it compiles with MATOPT_COMPILED, by which the headers leave the rules to it
# (matopt/compiled/rules.hpp).
function(matopt_add_compiled name include_dir)
  set(MATOPT_COMPILED_TYPES "float;double" CACHE STRING "Element types of matopt::compiled: float, double or both")
  add_library(${name} STATIC EXCLUDE_FROM_ALL)
  target_compile_definitions(${name} PUBLIC MATOPT_COMPILED)
  foreach(type IN LISTS MATOPT_COMPILED_TYPES)
    if(NOT type MATCHES "^(float|double)$")
      message(FATAL_ERROR "matopt: MATOPT_COMPILED_TYPES names \"${type}\"; there are float and double")
    endif()
    string(TOUPPER ${type} upper)
    target_sources(${name} PRIVATE ${include_dir}/matopt/compiled/rules_${type}.cpp)
    target_compile_definitions(${name} PUBLIC MATOPT_COMPILED_${upper})
  endforeach()
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${name} PUBLIC matopt::eigen)
endfunction()
