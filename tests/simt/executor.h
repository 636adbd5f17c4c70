// Runs launches one after the other. The runtime stand-in calls it; kernels do not see it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/simt/builtins.h"
#include "tests/simt/fault.h"
#include "tests/simt/launch.h"

namespace switchyard::simt {

inline constexpr size_t kMaxSharedBytes = 227 << 10;     ///< of a block, opted in
inline constexpr size_t kDefaultSharedBytes = 48 << 10;  ///< without opting in

/// Throws Fault when no GPU could run such a grid.
void check_launch(const Launch& launch);

/// Runs the launch to its end. Throws Fault. Not for two host threads at once.
void execute(const Launch& launch);

/// Whether the calling host thread is inside a kernel.
bool in_kernel();

/// Of the block that runs, 0 without one.
int64_t running_block();
/// Of the thread that runs, -1 without one.
int running_thread();
/// The name of the kernel that runs or ran last.
const std::string& running_kernel();
/// "kernel K block (0,0,0): thread (0,0,0) [warp 0 lane 0]: ".
std::string where();

/// The fault of the launch that just ended, if it had one.
std::optional<Fault> take_fault();

std::string hexadecimal(uint64_t value);

/// Whether `address` lies on the running thread's own stack.
bool is_on_running_stack(const void* address);

/// Makes accesses that no memory answers, from a kernel, into faults; from host code to device
/// memory into a message. Call on every host thread that launches.
void watch_invalid_accesses();

}  // namespace switchyard::simt
