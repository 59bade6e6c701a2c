# `cmake --install build --prefix there`: the headers, and a package for find_package(matopt). The tree can be moved.
include(CMakePackageConfigHelpers)
set(matopt_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/matopt)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/matopt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS matopt EXPORT matopt_targets)
install(EXPORT matopt_targets NAMESPACE matopt:: DESTINATION ${matopt_package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/matopt-config.cmake.in ${PROJECT_BINARY_DIR}/matopt-config.cmake
                              INSTALL_DESTINATION ${matopt_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/matopt-config-version.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/packages.cmake ${CMAKE_CURRENT_LIST_DIR}/simd.cmake ${CMAKE_CURRENT_LIST_DIR}/compiled.cmake
              ${CMAKE_CURRENT_LIST_DIR}/cuda_toolkit.cmake ${CMAKE_CURRENT_LIST_DIR}/torch.cmake
              ${PROJECT_BINARY_DIR}/matopt-config.cmake ${PROJECT_BINARY_DIR}/matopt-config-version.cmake
        DESTINATION ${matopt_package_dir})

# For builds without CMake: pkg-config --cflags matopt-eigen. The tree can be moved, so the prefix is a path from the file.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  message(STATUS "matopt: no files for pkg-config: CMAKE_INSTALL_LIBDIR or CMAKE_INSTALL_INCLUDEDIR is absolute")
else()
  file(RELATIVE_PATH matopt_pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" matopt_pc_to_prefix "${matopt_pc_to_prefix}")
  foreach(name matopt matopt-eigen)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  endforeach()
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
