# The packages of the tests. Of Catch2 it takes 2.13 or 3. Tests include <catch2/catch.hpp>, the header of Catch2 2; Catch2 3 has
# none, and tests/catch2_3 has one in its place that includes what the tests use.
matopt_find(Catch2 TARGET Catch2::Catch2 DEBIAN catch2 HEADER catch2/catch_session.hpp LIBRARY Catch2 Catch2d OWN)
if(matopt_Catch2_link)
  target_include_directories(Catch2::Catch2 INTERFACE ${PROJECT_SOURCE_DIR}/tests/catch2_3)
elseif(NOT MATOPT_Catch2_INCLUDE) # not even the headers of Catch2 3
  matopt_find(Catch2_2 TARGET Catch2::Catch2 DEBIAN catch2 HEADER catch2/catch.hpp OWN)
  set(matopt_Catch2_link ${matopt_Catch2_2_link})
endif()
find_package(Python3 QUIET COMPONENTS Interpreter)
set(matopt_Python3_link ${Python3_EXECUTABLE})
set(matopt_Python3_reason "Python 3 was not found (Debian: python3)")

foreach(package IN ITEMS Catch2 Eigen nlohmann_json Python3)
  if(NOT matopt_${package}_link)
    matopt_leave_out(MATOPT_TESTS tests "${matopt_${package}_reason}")
    set(MATOPT_TESTS OFF)
    return()
  endif()
endforeach()
