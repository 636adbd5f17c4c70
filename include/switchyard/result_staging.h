// Small results on their way from a backend's memory to the host, without anybody waiting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/backend.h"
#include "switchyard/stream.h"

namespace switchyard {

/// Slots of host memory into which work in a stream copies. For one thread at a time.
class ResultStaging {
 public:
  /// Bytes in the backend's memory.
  struct Part {
    const char* name;  ///< of the argument, for errors
    const void* data;
    int64_t bytes;  ///< 0 or more; a multiple of 8, like the address
  };

  virtual ~ResultStaging() = default;
  ResultStaging(const ResultStaging&) = delete;
  ResultStaging& operator=(const ResultStaging&) = delete;

  /// Copies the parts into the slot one behind another, once what is in the stream has come to
  /// this. Enqueues and returns; host backends are done on return. What was in the slot must have
  /// arrived.
  ///
  /// @param parts  slot_bytes at most
  /// @throws InvalidArgument  for memory that the backend cannot follow, another device's stream,
  /// or
  ///                          one that is being captured: nothing is enqueued then.
  /// @throws CudaError        when a call fails, naming it, and ever after a sticky error.
  virtual void copy(int64_t slot, std::span<const Part> parts, StreamView stream) = 0;
  /// Whether the latest copy into the slot is there.
  /// @throws CudaError  when the work before it failed.
  [[nodiscard]] virtual bool has_arrived(int64_t slot) const = 0;
  /// Returns when it is. @throws as has_arrived().
  virtual void wait_for(int64_t slot) const = 0;
  /// [slot_bytes], aligned to 64 bytes; to be read once it has arrived.
  [[nodiscard]] virtual const std::byte* data(int64_t slot) const = 0;

 protected:
  ResultStaging() = default;
};

/// Allocates everything; waits, when destroyed, for what is under way.
///
/// @param num_slots   1 or more
/// @param slot_bytes  0 or more
/// @throws Unavailable     when this build or machine lacks `backend`.
/// @throws std::bad_alloc
std::unique_ptr<ResultStaging> make_result_staging(int64_t num_slots, int64_t slot_bytes,
                                                   Backend backend);

}  // namespace switchyard
