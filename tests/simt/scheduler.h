// Which thread of the cluster runs next.
#pragma once

#include "tests/simt/block.h"
#include "tests/simt/launch.h"

namespace switchyard::simt {

/// Makes every thread of `block` ready and draws the order of its warps.
void begin_block_schedule();

/// Runs the cluster, `block` first, until every thread has exited, a fault stops it or none can
/// run.
void run_threads();

/// What a fiber does, one block after the other.
void run_fiber();

/// What one thread of the launch does.
void set_kernel_call(const KernelCall* call);

}  // namespace switchyard::simt
