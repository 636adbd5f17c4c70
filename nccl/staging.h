// Memory of every rank that all ranks read, used in turns.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "switchyard/communicator.h"

namespace switchyard::nccl {

/// Two halves a rank: while the ranks write one, what they wrote in the turn before can be read
/// from the other. Turns are counted over the life of the group, so that the first turn of one use
/// never overwrites what a slower rank still reads from the last one's.
class Staging {
 public:
  static constexpr int64_t kAlignment = 64;

  /// Collective.
  /// @return nothing, on every rank, where the ranks share no memory.
  static std::unique_ptr<Staging> make(Communicator& communicator, const char* phase);

  /// What fits a turn of one rank.
  [[nodiscard]] int64_t turn_bytes() const { return turn_bytes_; }
  /// From here on no rank writes more than `bytes` in a turn, which is the same on all of them: the
  /// fewer, the longer until the same memory is written again. What a reader has in the caches of
  /// its processor costs the next writer several times as much as what has left them.
  void begin(int64_t bytes);
  /// Where this rank writes in this turn.
  [[nodiscard]] std::byte* mine() const { return place(communicator_.rank(), turn_); }
  /// What `rank` wrote in the turn before.
  [[nodiscard]] const std::byte* last_of(int rank) const { return place(rank, turn_ - 1); }
  /// Returns when every rank has ended this turn.
  void end_turn(const char* phase);

 private:
  Staging(Communicator& communicator, std::vector<std::byte*> memory, int64_t turn_bytes);
  [[nodiscard]] std::byte* place(int rank, int64_t turn) const {
    return memory_[static_cast<std::size_t>(rank)] + turn % 2 * turn_bytes_ +
           turn / 2 % num_parts_ * part_bytes_;
  }

  Communicator& communicator_;
  std::vector<std::byte*> memory_;  // by rank; mapped as long as the communicator lives
  int64_t turn_bytes_;
  int64_t turn_ = 0;
  int64_t part_bytes_;
  int64_t num_parts_ = 1;  // of a half
};

}  // namespace switchyard::nccl
