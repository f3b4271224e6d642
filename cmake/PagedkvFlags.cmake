# pagedkv_flags: what every translation unit of this project is compiled with. Never exported.
add_library(pagedkv_flags INTERFACE)

set(_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
target_compile_options(pagedkv_flags INTERFACE
  # Contraction differs between targets and compilers, so it would change results; see "Same bits" in the docs.
  "$<$<COMPILE_LANGUAGE:CXX>:${_warnings};-ffp-contract=off>"
  # nvcc's generated host code is not pedantic-clean, so the host side of .cu files gets the smaller set.
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off>")

# `address` (with undefined) or `thread`: set by the sanitizer presets for all targets.
set(PAGEDKV_SANITIZE "" CACHE STRING "Sanitizer for everything: address (with undefined), thread, or empty")
if(PAGEDKV_SANITIZE STREQUAL "address")
  # Left out: what costs a third of the compile time to find what AddressSanitizer or g++'s warnings find anyway.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize=vptr,null,object-size -fno-sanitize-recover=all
    -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(PAGEDKV_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(PAGEDKV_SANITIZE)
  message(FATAL_ERROR "PAGEDKV_SANITIZE is '${PAGEDKV_SANITIZE}'; accepted: address, thread, or empty")
endif()
