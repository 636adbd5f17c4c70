// Which way bytes take to memory that other ranks read next.
#pragma once

#include <cstdint>

namespace switchyard::nccl {

/// Chooses between copies through the caches and copies past them. Where ranks share a last-level
/// cache, up to a few megabytes are written and read twice as fast through it. Where they do not,
/// every line that is overwritten has to be taken back from a reader's cache first, which costs ten
/// times as much as to write past the caches. Nobody tells reliably which it is, and a virtual
/// machine moves its processors from the one to the other; so what copies take decides.
class CopyRoute {
 public:
  /// How the next copies should go, of so many bytes together.
  [[nodiscard]] bool passes_caches(int64_t num_bytes);
  /// What copies through the caches took.
  void learn(int64_t num_bytes, double seconds);

 private:
  bool is_slow_ = false;  // through the caches
  int num_slow_ = 0;      // in a row
  int num_passed_ = 0;    // past them since the last trial
};

}  // namespace switchyard::nccl
