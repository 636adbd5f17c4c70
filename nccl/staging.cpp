#include "nccl/staging.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace switchyard::nccl {
namespace {

// Until the same memory comes again. Two processors of an AMD EPYC that share an L3 of 32 MiB, each
// of which writes 256 KB and reads the other's, in us: 27 by turns in two places, 15 in 1 MB,
// 14 in 2 MB, 15 in 4 MB, 20 in 8 MB, where both no longer fit beside what else they need; 33 past
// the caches, wherever. With 64 KB: 12, 5, 5, 5, 6 and 9. Where other work empties the second-level
// caches between turns, more places only make it more memory.
constexpr int64_t kRoundBytes = int64_t{2} << 20;
constexpr int64_t kMostParts = 4;

}  // namespace

Staging::Staging(Communicator& communicator, std::vector<std::byte*> memory, int64_t turn_bytes)
    : communicator_(communicator),
      memory_(std::move(memory)),
      turn_bytes_(turn_bytes),
      part_bytes_(turn_bytes) {}

std::unique_ptr<Staging> Staging::make(Communicator& communicator, const char* phase) {
  const int64_t turn_bytes = communicator.options().staging_bytes / 2 / kAlignment * kAlignment;
  if (turn_bytes == 0) return nullptr;
  const std::span<std::byte> mine = communicator.allocate_shared(phase, 2 * turn_bytes);
  if (mine.empty()) return nullptr;
  std::vector<std::byte*> memory(static_cast<std::size_t>(communicator.size()));
  communicator.lend(phase, mine.data(), memory);
  communicator.give_back();
  return std::unique_ptr<Staging>(new Staging(communicator, std::move(memory), turn_bytes));
}

void Staging::begin(int64_t bytes) {
  part_bytes_ = std::clamp<int64_t>((bytes + kAlignment - 1) / kAlignment * kAlignment, kAlignment,
                                    turn_bytes_);
  num_parts_ = std::clamp<int64_t>(kRoundBytes / 2 / part_bytes_, 1,
                                   std::min(kMostParts, turn_bytes_ / part_bytes_));
}

void Staging::end_turn(const char* phase) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  communicator_.barrier(phase);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ++turn_;
}

}  // namespace switchyard::nccl
