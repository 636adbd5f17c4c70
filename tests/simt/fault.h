// What a kernel can do wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace switchyard::simt {

enum class FaultKind {
  kBarrierDivergence,   ///< threads of a block at different barriers, or gone before one
  kCollectiveMismatch,  ///< lanes of a warp that disagree on a collective, or a wrong mask
  kInactiveLane,        ///< a shuffle from a lane that takes no part
  kDeadlock,            ///< every thread waits
  kLivelock,            ///< threads run and change nothing
  kSharedBounds,        ///< a write behind an array in shared memory
  kSharedLimit,         ///< more shared memory than a block may have
  kBadLaunch,
  kStackOverflow,
  kRace,           ///< two accesses that nothing orders, one of them a write; race build only
  kUninitialized,  ///< a read of memory never written; race build only
  kInvalidAccess,  ///< an address that a kernel must not touch
  kMisaligned,     ///< a vector access that is not aligned to its size
  kTrap,
};

const char* to_string(FaultKind kind);

/// The text names kernel, block, thread and, where known, file and line.
class Fault : public std::runtime_error {
 public:
  Fault(FaultKind kind, const std::string& text) : std::runtime_error(text), kind_(kind) {}
  [[nodiscard]] FaultKind kind() const { return kind_; }

 private:
  FaultKind kind_;
};

/// The latest fault of any launch since the program started or reset() was called. The runtime
/// stand-in reports it as a cudaError_t whose cudaGetErrorString is the fault's text.
std::optional<Fault> last_fault();

/// Forgets faults and errors, queued work and captures; memory, streams and events stay.
void reset();

/// Device allocations that nobody has freed.
int64_t num_device_allocations();

}  // namespace switchyard::simt
