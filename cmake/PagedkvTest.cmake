include(PagedkvPortable)
find_package(GTest REQUIRED)
find_package(rapidcheck REQUIRED)

add_custom_target(cuda_tests)
add_dependencies(cuda_tests gpu_programs)

set(PAGEDKV_TEST_RESULTS ${PROJECT_BINARY_DIR}/test-results)

# One GoogleTest binary per area, one ctest entry per binary. Each writes its cases as JSON to test-results/, where
# tests/scripts/count_results.py adds them up.
#
#   pagedkv_add_test(name SOURCES a.cpp b.cpp [LIBS x y] [GPU] [TIMEOUT seconds] [ENVIRONMENT A=b])
#
# GoogleTest (with main and GoogleMock), rapidcheck, the library and the project's flags are linked already. tests/ is
# on the include path ("support/...", "oracle/..."), src/ is not: a test that looks inside says so itself.
#
# Where PAGEDKV_TEST_LABEL is set (tests/cuda: "cuda"), tests get it as their label and are built by target
# ${PAGEDKV_TEST_LABEL}_tests.
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
  if(PAGEDKV_PRECOMPILED_TEST_HEADERS)
    target_precompile_headers(${name} REUSE_FROM pagedkv_precompiled_tests)
    set_target_properties(${name} PROPERTIES PCH_WARN_INVALID OFF)  # a test with other flags goes without them
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(T_GPU)
    pagedkv_make_portable(${name})
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set(labels ${PAGEDKV_TEST_LABEL})
  if(T_GPU)
    list(APPEND labels gpu)
  endif()
  if(PAGEDKV_TEST_LABEL)
    add_dependencies(${PAGEDKV_TEST_LABEL}_tests ${name})
  endif()
  if(PAGEDKV_SANITIZE STREQUAL "thread")
    list(APPEND T_ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
  endif()
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${T_TIMEOUT}
    LABELS "${labels}"
    ENVIRONMENT "GTEST_OUTPUT=json:${PAGEDKV_TEST_RESULTS}/${name}.json;${T_ENVIRONMENT}")
endfunction()

# A test that is a command (a script, a tool's run): one case.
#   pagedkv_add_command_test(name COMMAND ... [TIMEOUT seconds])
function(pagedkv_add_command_test name)
  cmake_parse_arguments(PARSE_ARGV 1 T "" "TIMEOUT" "COMMAND")
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${T_COMMAND} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${PAGEDKV_TEST_LABEL}")
endfunction()
