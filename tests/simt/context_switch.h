// The change from one stack to another, without a system call.
#pragma once

#include <cstddef>

namespace switchyard::simt {

/// Prepares a stack on which `entry`, which never returns, starts when first switched to. Returns
/// what switch_context() takes.
void* make_context(char* stack, size_t bytes, void (*entry)());

/// Leaves the running context's state in *from and goes on with `to`.
void switch_context(void** from, void* to);

}  // namespace switchyard::simt
