// What memory-aware serving counts.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard {

/// Counts since the start or the last reset. An access is one (token, slot) choice.
struct MemoryMetrics {
  int64_t hits = 0;             ///< accesses to experts in fast memory
  int64_t misses = 0;           ///< all others
  int64_t page_ins = 0;         ///< experts brought into fast memory, for whatever reason
  int64_t page_outs = 0;        ///< experts that left it
  int64_t prefetch_hits = 0;    ///< prefetched experts that were used before they left
  int64_t prefetch_misses = 0;  ///< prefetched experts that left unused
  int64_t decisions = 0;        ///< calls that served tokens
  int64_t timed_decisions = 0;  ///< those whose latency was measured
  int64_t latency_sum_ns = 0;
  int64_t latency_max_ns = 0;

  void record_hits(int64_t count = 1) { hits += count; }
  void record_misses(int64_t count = 1) { misses += count; }
  void record_latency(int64_t nanoseconds) {
    ++timed_decisions;
    latency_sum_ns += nanoseconds;
    latency_max_ns = std::max(latency_max_ns, nanoseconds);
  }
  void reset() { *this = {}; }

  /// Hits over accesses, 0 without accesses.
  [[nodiscard]] double hit_rate() const {
    const int64_t accesses = hits + misses;
    return accesses > 0 ? static_cast<double>(hits) / static_cast<double>(accesses) : 0.0;
  }
  /// Of the timed decisions, 0 without any.
  [[nodiscard]] double mean_latency_ns() const {
    if (timed_decisions == 0) return 0.0;
    return static_cast<double>(latency_sum_ns) / static_cast<double>(timed_decisions);
  }

  bool operator==(const MemoryMetrics&) const = default;
};

}  // namespace switchyard
