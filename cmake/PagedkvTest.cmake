find_package(GTest REQUIRED)
find_package(rapidcheck REQUIRED)

set(PAGEDKV_TEST_RESULTS ${PROJECT_BINARY_DIR}/test-results)

# One GoogleTest binary per area, one ctest entry per binary. Each writes its cases as JSON to test-results/, where
# tests/scripts/count_results.py adds them up.
#
#   pagedkv_add_test(name SOURCES a.cpp b.cpp [LIBS x y] [GPU] [TIMEOUT seconds] [ENVIRONMENT A=b])
#
# GoogleTest (with main and GoogleMock), rapidcheck, the library and the project's flags are linked already. tests/ is
# on the include path ("support/...", "oracle/..."), src/ is not: a test that looks inside says so itself.
#
# GPU: the test wants a device. `./dev test` leaves it out, `./dev gpu-test` runs it; everything it needs beside libc is
# put into bin/gpu, so that this folder can be copied to a machine with a GPU and run there.
function(pagedkv_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 T "GPU" "TIMEOUT" "SOURCES;LIBS;ENVIRONMENT")
  if(T_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "pagedkv_add_test(${name}): unknown arguments ${T_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
  endif()
  add_executable(${name} ${T_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE
    pagedkv::pagedkv pagedkv_flags ${T_LIBS} GTest::gmock GTest::gtest_main rapidcheck rapidcheck_gtest)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(T_GPU)
    pagedkv_make_portable(${name})
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${T_TIMEOUT}
    LABELS "$<$<BOOL:${T_GPU}>:gpu>"
    ENVIRONMENT "GTEST_OUTPUT=json:${PAGEDKV_TEST_RESULTS}/${name}.json;${T_ENVIRONMENT}")
endfunction()

# Puts an executable and the shared libraries that it needs beyond libc into bin/gpu.
function(pagedkv_make_portable name)
  target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin/gpu
    BUILD_RPATH_USE_ORIGIN ON
    BUILD_RPATH "$ORIGIN")
  foreach(library IN ITEMS hwy::hwy TBB::tbb)
    add_custom_command(TARGET ${name} POST_BUILD COMMAND ${CMAKE_COMMAND} -E copy_if_different
      $<TARGET_FILE:${library}> $<TARGET_FILE_DIR:${name}>/$<TARGET_SONAME_FILE_NAME:${library}>)
  endforeach()
endfunction()

# A test that is a command (a script, a tool's run): one case.
#   pagedkv_add_command_test(name COMMAND ... [LABELS l] [TIMEOUT seconds])
function(pagedkv_add_command_test name)
  cmake_parse_arguments(PARSE_ARGV 1 T "" "TIMEOUT" "COMMAND;LABELS")
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${T_COMMAND} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}")
endfunction()
