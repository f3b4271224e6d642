include_guard(GLOBAL)

# All that `./dev gpu-test` and `./dev gpu-bench` run.
add_custom_target(gpu_programs)

# Puts an executable and the shared libraries that it needs beyond libc into bin/gpu.
function(pagedkv_make_portable name)
  add_dependencies(gpu_programs ${name})
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
