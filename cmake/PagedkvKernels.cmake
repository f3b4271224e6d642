# Turns cmake/KernelMatrix.cmake into source files in the build folder: per operation one for each (arch, dtype, some
# head_dims), which instantiates the launchers, and one table. PAGEDKV_KERNELS_ONLY, a regular expression over
# <op>_sm<arch>_<dtype>_<head_dim><part>, leaves out the others.

set(_pagedkv_kernel_dir ${PROJECT_BINARY_DIR}/generated/cuda)

function(pagedkv_kernels op)
  cmake_parse_arguments(PARSE_ARGV 1 K "" "ARCH;PART;DIMS_PER_FILE" "DTYPES;HEAD_DIMS;FORMATS;VARIANTS")
  if(K_UNPARSED_ARGUMENTS OR NOT K_DTYPES OR NOT K_HEAD_DIMS)
    message(FATAL_ERROR "pagedkv_kernels(${op}): DTYPES or HEAD_DIMS missing, or unknown ${K_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT K_ARCH)
    set(K_ARCH 80)
  endif()
  if(NOT K_FORMATS)
    set(K_FORMATS any)
  endif()
  if(NOT DEFINED K_VARIANTS)
    set(K_VARIANTS 0)
  endif()
  if(NOT K_DIMS_PER_FILE)
    set(K_DIMS_PER_FILE 1)
  endif()
  if(K_ARCH EQUAL 90 AND NOT "${CMAKE_CUDA_ARCHITECTURES}" MATCHES "90a")
    return()
  endif()
  set(type_f16 half_t)
  set(type_bf16 bfloat16_t)
  foreach(dtype IN LISTS K_DTYPES)
    set(left ${K_HEAD_DIMS})
    while(left)
      list(SUBLIST left 0 ${K_DIMS_PER_FILE} dims)
      list(REMOVE_ITEM left ${dims})
      set(instances "")
      foreach(dim IN LISTS dims)
        if(PAGEDKV_KERNELS_ONLY AND NOT "${op}_sm${K_ARCH}_${dtype}_${dim}${K_PART}" MATCHES "${PAGEDKV_KERNELS_ONLY}")
          continue()
        endif()
        foreach(format IN LISTS K_FORMATS)
          if(format STREQUAL "any")
            set(template_format "true, KvType::same, KvType::same")
          else()
            string(REGEX REPLACE "^(.*):(.*)$" "false, KvType::\\1, KvType::\\2" template_format ${format})
          endif()
          foreach(variant IN LISTS K_VARIANTS)
            set(id "KernelId<${K_ARCH}, ${type_${dtype}}, ${template_format}, ${dim}, ${variant}>")
            string(APPEND instances "template struct Launch<${id}>;\n")
            set_property(GLOBAL APPEND_STRING PROPERTY pagedkv_table_${op}
              "    {${id}::key(), &Launch<${id}>::run},\n")
          endforeach()
        endforeach()
      endforeach()
      if(instances STREQUAL "")
        continue()
      endif()
      list(JOIN dims "_" dims)
      set(file ${_pagedkv_kernel_dir}/${op}_sm${K_ARCH}_${dtype}_${dims}${K_PART}.cu)
      file(CONFIGURE OUTPUT ${file} CONTENT
"// Generated from cmake/KernelMatrix.cmake.
#include \"cuda/${op}/${op}.cuh\"

namespace pagedkv::cuda::impl::${op} {
${instances}}  // namespace pagedkv::cuda::impl::${op}
" @ONLY)
      get_property(known GLOBAL PROPERTY pagedkv_kernel_sources_${K_ARCH})
      if(file IN_LIST known)
        message(FATAL_ERROR "pagedkv_kernels(${op}): ${dtype} ${dims} is listed twice")
      endif()
      set_property(GLOBAL APPEND PROPERTY pagedkv_kernel_sources_${K_ARCH} ${file})
    endwhile()
  endforeach()
  set_property(GLOBAL APPEND PROPERTY pagedkv_kernel_ops ${op})
endfunction()

# Adds these files to a target. With AS_CXX they are C++ (tests/emulation).
#   pagedkv_add_kernels(target [AS_CXX])
function(pagedkv_add_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 K "AS_CXX" "" "")
  include(KernelMatrix)
  get_property(ops GLOBAL PROPERTY pagedkv_kernel_ops)
  list(REMOVE_DUPLICATES ops)
  foreach(op IN LISTS ops)
    get_property(entries GLOBAL PROPERTY pagedkv_table_${op})
    string(REGEX MATCHALL "\n" lines "${entries}")
    list(LENGTH lines count)
    file(CONFIGURE OUTPUT ${_pagedkv_kernel_dir}/${op}_table.cpp CONTENT
"// Generated from cmake/KernelMatrix.cmake.
#include \"cuda/${op}/${op}.h\"

#include <array>

namespace pagedkv::cuda::impl::${op} {

std::span<const KernelEntry<Launcher>> kernels() {
  static constexpr std::array<KernelEntry<Launcher>, ${count}> kTable = {{
${entries}  }};
  return kTable;
}

}  // namespace pagedkv::cuda::impl::${op}
" @ONLY)
    target_sources(${target} PRIVATE ${_pagedkv_kernel_dir}/${op}_table.cpp)
  endforeach()

  get_property(sources GLOBAL PROPERTY pagedkv_kernel_sources_80)
  target_sources(${target} PRIVATE ${sources})
  if(K_AS_CXX)
    set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX)
  endif()
  get_property(sources GLOBAL PROPERTY pagedkv_kernel_sources_90)
  if(sources)
    # wgmma and the like exist for sm_90a only, and architectures are a property of a target.
    add_library(pagedkv_sm90 OBJECT ${sources})
    set_target_properties(pagedkv_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real POSITION_INDEPENDENT_CODE ON)
    target_include_directories(pagedkv_sm90 PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(pagedkv_sm90 PRIVATE pagedkv_flags)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:pagedkv_sm90>)
  endif()
endfunction()
