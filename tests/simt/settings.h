// What a test may choose about the executor, and what the executor counts.
#pragma once

#include <cstdint>

namespace switchyard::simt {

/// The order of blocks, of warps in a block and of lanes in a warp. kRandom follows the seed and
/// lets some warps run far ahead of others.
enum class Order { kForward, kReverse, kRandom };

/// When work in a stream runs: at once, as late as it may, or at a random moment between. The last
/// two show a synchronisation that is missing.
enum class StreamOrder { kEager, kDeferred, kRandom };

inline constexpr int kMaxDevices = 8;

struct Settings {
  Order order = Order::kForward;
  StreamOrder stream_order = StreamOrder::kEager;
  uint64_t seed = 1;  ///< of both orders

  /// Lets another thread run at one in so many atomics, in the race build at one in so many
  /// accesses; 0 for never.
  int preempt_one_in = 0;
  /// Lets host code that touches device memory end the program. Costs two system calls for each
  /// allocation whenever work runs, which a test of very many launches may want to save.
  bool hide_device_memory = true;
  /// So many atomics in a row that change nothing are a livelock.
  int64_t max_idle_atomics = 4'000'000;

  // The device that the runtime stand-in shows.
  int num_devices = 1;  ///< up to kMaxDevices; any of them runs kernels in any device's memory
  int num_multiprocessors = 4;
  int compute_capability = 90;  ///< 10 * major + minor
  int compiled_for = 90;        ///< what cudaFuncGetAttributes says of kernels, in the same terms
  int max_cluster_blocks = 16;  ///< that the device can run together; beyond 8 only where opted in
  int64_t device_memory_bytes = int64_t{4} << 30;
};

/// To be changed between launches only.
Settings& settings();

/// Puts the settings back as they were when it was made.
class ScopedSettings {
 public:
  ScopedSettings() : saved_(settings()) {}
  explicit ScopedSettings(const Settings& replacement) : saved_(settings()) {
    settings() = replacement;
  }
  ScopedSettings(const ScopedSettings&) = delete;
  ScopedSettings& operator=(const ScopedSettings&) = delete;
  ~ScopedSettings() { settings() = saved_; }

 private:
  Settings saved_;
};

/// Totals since the program started.
struct Statistics {
  int64_t kernels = 0;  ///< different ones
  int64_t launches = 0;
  int64_t blocks = 0;
  int64_t threads = 0;
  int64_t barriers = 0;
  int64_t warp_collectives = 0;
  int64_t switches = 0;
  int64_t max_shared_bytes = 0;
};
const Statistics& statistics();

/// Whether kernels report each access to memory, so that races and uninitialised reads are seen.
bool sees_accesses();

}  // namespace switchyard::simt
