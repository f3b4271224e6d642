#pragma once
// bf16 as CUDA names it.

#include "pagedkv/core/half.h"

struct __nv_bfloat16 {
  pagedkv::bfloat16_t value;
};
