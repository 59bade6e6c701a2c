# The library's targets. They carry the include path, C++20 and their links, and nothing else: no flags reach a consumer.
#   matopt::matopt   core, policies and rules; needs nothing
#   matopt::eigen    and the CPU backend; needs Eigen 3.4 and threads
#   matopt::io       and checkpoints (safetensors); needs nlohmann_json
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(matopt INTERFACE)
add_library(matopt::matopt ALIAS matopt)
target_compile_features(matopt INTERFACE cxx_std_20)
target_include_directories(matopt INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

set(matopt_targets matopt)
find_package(Eigen3 3.4 QUIET NO_MODULE)
find_package(Threads QUIET)
if(TARGET Eigen3::Eigen AND Threads_FOUND)
  add_library(matopt_eigen INTERFACE)
  add_library(matopt::eigen ALIAS matopt_eigen)
  set_target_properties(matopt_eigen PROPERTIES EXPORT_NAME eigen)
  target_link_libraries(matopt_eigen INTERFACE matopt Eigen3::Eigen Threads::Threads)
  list(APPEND matopt_targets matopt_eigen)
endif()
find_package(nlohmann_json QUIET)
if(TARGET nlohmann_json::nlohmann_json)
  add_library(matopt_io INTERFACE)
  add_library(matopt::io ALIAS matopt_io)
  set_target_properties(matopt_io PROPERTIES EXPORT_NAME io)
  target_link_libraries(matopt_io INTERFACE matopt nlohmann_json::nlohmann_json)
  list(APPEND matopt_targets matopt_io)
endif()

if(matopt_top_level)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/matopt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  # Each component in a file of its own, so that core-only use asks for no package.
  foreach(target IN LISTS matopt_targets)
    install(TARGETS ${target} EXPORT ${target}_targets)
    install(EXPORT ${target}_targets NAMESPACE matopt:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/matopt)
  endforeach()
  configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/matopt-config.cmake.in ${PROJECT_BINARY_DIR}/matopt-config.cmake
                                INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/matopt)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/matopt-config-version.cmake COMPATIBILITY SameMinorVersion
                                   ARCH_INDEPENDENT)
  install(FILES ${PROJECT_BINARY_DIR}/matopt-config.cmake ${PROJECT_BINARY_DIR}/matopt-config-version.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/matopt)
endif()
