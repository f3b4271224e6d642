#pragma once
// The attention loops, compiled for several SIMD targets.

#include "cpu/attention/problem.h"
#include "cpu/attention/workspace.h"

namespace pagedkv::cpu::attention {

struct Kernels {
  using Run = void (*)(const Problem&, const Item&, const Scratch&, const Partials&);

  Run run_item;  ///< writes the item's outputs or, if it is not all splits of its rows, its partials
  Run run_fold;  ///< folds the partials of a group of rows and writes its outputs
};

/// Those of the target in use.
Kernels current_kernels();

}  // namespace pagedkv::cpu::attention
