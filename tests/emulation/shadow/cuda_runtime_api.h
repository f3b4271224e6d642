#pragma once
// What the sources under src/cuda and tests/cuda use of CUDA, for a compiler without it: kernels run on the CPU.

#include "emulator/intrinsics.h"
#include "emulator/runtime.h"
