#include "nccl/staging.h"

#include <atomic>
#include <utility>

namespace switchyard::nccl {

Staging::Staging(Communicator& communicator, std::vector<std::byte*> memory, int64_t turn_bytes)
    : communicator_(communicator), memory_(std::move(memory)), turn_bytes_(turn_bytes) {}

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

void Staging::end_turn(const char* phase) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  communicator_.barrier(phase);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ++turn_;
}

}  // namespace switchyard::nccl
