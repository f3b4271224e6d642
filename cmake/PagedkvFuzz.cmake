add_custom_target(fuzzers)

# A libFuzzer target and a bounded, seeded run of it under ctest (label fuzz).
#
#   pagedkv_add_fuzzer(name SOURCES a.cpp [LIBS x] CORPUS dir [RUNS n] [SECONDS n])
#
# The corpus folder is read only; what a run finds goes to the build folder.
function(pagedkv_add_fuzzer name)
  cmake_parse_arguments(PARSE_ARGV 1 F "" "CORPUS;RUNS;SECONDS" "SOURCES;LIBS")
  if(F_UNPARSED_ARGUMENTS OR NOT F_CORPUS)
    message(FATAL_ERROR "pagedkv_add_fuzzer(${name}): CORPUS missing, or unknown arguments ${F_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT F_RUNS)
    set(F_RUNS 50000)
  endif()
  if(NOT F_SECONDS)
    set(F_SECONDS 20)
  endif()
  add_executable(${name} EXCLUDE_FROM_ALL ${F_SOURCES})
  target_link_libraries(${name} PRIVATE pagedkv_flags ${F_LIBS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers ${name})
  set(found ${PROJECT_BINARY_DIR}/fuzz-found/${name})
  file(MAKE_DIRECTORY ${found})
  get_filename_component(corpus ${F_CORPUS} ABSOLUTE)
  add_test(NAME ${name} COMMAND ${name} -seed=1 -runs=${F_RUNS} -max_total_time=${F_SECONDS} -timeout=10
    -rss_limit_mb=2048 -artifact_prefix=${found}/ ${found} ${corpus})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()
