# Packages of others, taken so that one that is missing or broken costs its own feature and nothing else. Used by the project
# and by the package that it installs.

# matopt_find(name TARGET target DEBIAN package HEADER file [LIBRARY names...] [OWN]) finds a package by its files. It sets
# matopt_<name>_link, what to link, and matopt_<name>_reason, which says what is wrong if something is: one of them is empty.
# With OWN what to link gets the name of the package's own target; not for a consumer, whose find_package may come later.
#
# The package's own CMake files are not asked, because they stop the whole configuration where a file that they list is gone.
# A target that the project around has brought along is taken as it is.
function(matopt_find name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OWN" "TARGET;DEBIAN;HEADER" "LIBRARY")
  set(matopt_${name}_reason "" PARENT_SCOPE)
  if(TARGET ${arg_TARGET})
    set(matopt_${name}_link ${arg_TARGET} PARENT_SCOPE)
    return()
  endif()

  # Where find_package would look, too: <package>_ROOT, and <package>_DIR, which is some folders below the prefix.
  string(REGEX REPLACE "::.*" "" package ${arg_TARGET})
  set(hints ${${package}_ROOT} $ENV{${package}_ROOT})
  if(${package}_DIR)
    list(APPEND hints ${${package}_DIR}/../.. ${${package}_DIR}/../../.. ${${package}_DIR}/../../../..)
  endif()
  foreach(variable IN ITEMS MATOPT_${name}_INCLUDE MATOPT_${name}_LIBRARY)
    if(DEFINED CACHE{${variable}} AND NOT EXISTS "$CACHE{${variable}}/${arg_HEADER}" AND
       (variable MATCHES "_INCLUDE$" OR NOT EXISTS "$CACHE{${variable}}"))
      unset(${variable} CACHE) # it was there when the project was configured before
    endif()
  endforeach()
  find_path(MATOPT_${name}_INCLUDE ${arg_HEADER} HINTS ${hints} PATH_SUFFIXES include)
  mark_as_advanced(MATOPT_${name}_INCLUDE)
  set(include "${MATOPT_${name}_INCLUDE}")
  set(library "")
  if(arg_LIBRARY)
    find_library(MATOPT_${name}_LIBRARY NAMES ${arg_LIBRARY} HINTS ${hints} PATH_SUFFIXES lib)
    mark_as_advanced(MATOPT_${name}_LIBRARY)
    set(library "${MATOPT_${name}_LIBRARY}")
  endif()

  set(link matopt_found_${name})
  if(arg_OWN)
    set(link ${arg_TARGET})
  endif()
  if(NOT include AND NOT library)
    set(reason "${name} was not found (Debian: ${arg_DEBIAN})")
  elseif(NOT include)
    set(reason "${name} is broken: ${library} is there, but not its header ${arg_HEADER} (Debian: reinstall ${arg_DEBIAN})")
  elseif(arg_LIBRARY AND NOT library)
    list(GET arg_LIBRARY 0 file)
    set(reason "${name} is broken: ${include}/${arg_HEADER} is there, but not the library ${file}")
    string(APPEND reason " (Debian: reinstall ${arg_DEBIAN})")
  else()
    set(reason "")
    if(NOT TARGET ${link})
      add_library(${link} INTERFACE IMPORTED)
      target_include_directories(${link} SYSTEM INTERFACE ${include})
      target_link_libraries(${link} INTERFACE ${library})
    endif()
    set(matopt_${name}_link ${link} PARENT_SCOPE)
    return()
  endif()
  set(matopt_${name}_link "" PARENT_SCOPE)
  set(matopt_${name}_reason ${reason} PARENT_SCOPE)
endfunction()

# matopt_check_headers(name VERSION version TARGET target DEBIAN package HEADER file): the same result for a library of headers
# that find_package has looked for, and made `target` of if it is there: the configuration of a package can outlive its headers.
function(matopt_check_headers name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "VERSION;TARGET;DEBIAN;HEADER" "")
  set(matopt_${name}_link "" PARENT_SCOPE)
  if(NOT TARGET ${arg_TARGET})
    set(matopt_${name}_reason "${name} ${arg_VERSION} was not found (Debian: ${arg_DEBIAN})" PARENT_SCOPE)
    return()
  endif()
  get_target_property(imported ${arg_TARGET} IMPORTED)
  get_target_property(include ${arg_TARGET} INTERFACE_INCLUDE_DIRECTORIES)
  if(imported AND include AND NOT include MATCHES "\\$<")
    find_file(header ${arg_HEADER} PATHS ${include} NO_DEFAULT_PATH NO_CACHE)
    if(NOT header)
      set(matopt_${name}_reason "${name} is broken: there is no ${arg_HEADER} in ${include} (Debian: reinstall ${arg_DEBIAN})"
          PARENT_SCOPE)
      return()
    endif()
  endif()
  set(matopt_${name}_link ${arg_TARGET} PARENT_SCOPE)
  set(matopt_${name}_reason "" PARENT_SCOPE)
endfunction()
