#pragma once
// The decode that the recorded outputs are compared with: one definition per backend, linked with the same test.

#include <string>

#include "pagedkv/ops.h"

namespace golden {

/// Runs decode with arguments that point to host memory; block addresses lie in the slab at `slab`, from its first
/// byte.
void run_decode(const pagedkv::DecodeArgs& args, const char* slab);

/// Relative error of a probability when it meets its value.
double probability_error();

/// Empty, or why the backend cannot run here.
std::string why_not_run();

}  // namespace golden
