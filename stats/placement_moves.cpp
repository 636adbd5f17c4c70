#include "switchyard/placement_moves.h"

#include <algorithm>
#include <limits>
#include <string>

#include "stats/index_of.h"
#include "stats/refuse.h"

namespace switchyard {

using stats::check_range;
using stats::index_of;
using stats::refuse;

namespace {

void check_alike(const ExpertPlacement& before, const ExpertPlacement& after) {
  const auto expect = [](const std::string& what, int64_t here, int64_t there) {
    if (here != there) refuse(what, " are ", here, " before and ", there, " after");
  };
  expect("experts", before.num_experts(), after.num_experts());
  expect("ranks", before.num_ranks(), after.num_ranks());
  for (int32_t rank = 0; rank < before.num_ranks(); ++rank) {
    expect("slots of rank " + std::to_string(rank), before.num_slots_of(rank),
           after.num_slots_of(rank));
  }
}

/// One layer's slots that get another expert, and where each comes from.
class Schedule {
 public:
  Schedule(const ExpertPlacement& before, const ExpertPlacement& after, int32_t layer,
           int64_t bytes_per_slot, int32_t ranks_per_node)
      : before_(before),
        after_(after),
        layer_(layer),
        bytes_per_slot_(bytes_per_slot),
        ranks_per_node_(ranks_per_node),
        source_of_(index_of(before.num_slots()), -1),
        readers_(index_of(before.num_slots())),
        uses_(index_of(before.num_slots())) {
    for (int32_t slot = 0; slot < before.num_slots(); ++slot) {
      if (!changes(slot) || after_expert(slot) < 0) continue;
      const int32_t source = source_for(slot);
      source_of_[index_of(slot)] = source;
      ++uses_[index_of(source)];
      ++readers_[index_of(source)];
    }
  }

  /// A slot is written once nobody wants what it holds any more. What is left then is rings.
  std::vector<PlacementMove> steps() {
    for (int32_t slot = 0; slot < before_.num_slots(); ++slot) write_while_free(slot);
    for (int32_t slot = 0; slot < before_.num_slots(); ++slot) {
      if (source_of_[index_of(slot)] < 0) continue;
      // Its first expert is set aside for the one slot that wants it, so that it can be written.
      const int32_t last = reader_of(slot);
      add(MoveKind::kSetAside, slot, last);
      source_of_[index_of(last)] = -1;
      --readers_[index_of(slot)];
      write_while_free(slot);
      add(MoveKind::kPutBack, -1, last);
    }
    return std::move(steps_);
  }

 private:
  [[nodiscard]] int32_t before_expert(int32_t slot) const {
    return before_.slot_to_expert()[index_of(slot)];
  }
  [[nodiscard]] int32_t after_expert(int32_t slot) const {
    return after_.slot_to_expert()[index_of(slot)];
  }
  [[nodiscard]] bool changes(int32_t slot) const {
    return before_expert(slot) != after_expert(slot);
  }

  [[nodiscard]] int32_t source_for(int32_t slot) const {
    const int32_t expert = after_expert(slot);
    const int32_t rank = after_.rank_of_slot(slot);
    const std::span<const int32_t> offsets = before_.replica_offsets();
    int32_t best = -1;
    int64_t best_rating = std::numeric_limits<int64_t>::max();
    for (int32_t i = offsets[index_of(expert)]; i < offsets[index_of(expert) + 1]; ++i) {
      const int32_t candidate = before_.replica_slots()[index_of(i)];
      const int32_t holder = before_.rank_of_slot(candidate);
      // What is written for good can wait for nobody; then the near, then whoever sent least.
      const int64_t overwritten = changes(candidate) && after_expert(candidate) >= 0 ? 1 : 0;
      const int64_t elsewhere = holder == rank                                       ? 0
                                : holder / ranks_per_node_ == rank / ranks_per_node_ ? 1
                                                                                     : 2;
      const int64_t rating = ((overwritten * 3 + elsewhere) << 32) + uses_[index_of(candidate)];
      if (rating < best_rating) {
        best_rating = rating;
        best = candidate;
      }
    }
    return best;
  }

  [[nodiscard]] int32_t reader_of(int32_t slot) const {
    const auto found = std::find(source_of_.begin(), source_of_.end(), slot);
    return static_cast<int32_t>(found - source_of_.begin());
  }

  void add(MoveKind kind, int32_t from_slot, int32_t to_slot) {
    PlacementMove move{.kind = kind,
                       .layer = layer_,
                       .expert = after_expert(to_slot),
                       .to_slot = to_slot,
                       .to_rank = after_.rank_of_slot(to_slot)};
    if (from_slot >= 0) {
      move.from_slot = from_slot;
      move.from_rank = before_.rank_of_slot(from_slot);
      if (move.from_rank != move.to_rank) move.bytes = bytes_per_slot_;
    }
    steps_.push_back(move);
  }

  /// Writes the slot if nobody wants what it holds, then its source if that was the last to wait
  /// for it, and so on.
  void write_while_free(int32_t slot) {
    while (source_of_[index_of(slot)] >= 0 && readers_[index_of(slot)] == 0) {
      const int32_t source = source_of_[index_of(slot)];
      add(MoveKind::kCopy, source, slot);
      source_of_[index_of(slot)] = -1;
      --readers_[index_of(source)];
      slot = source;
    }
  }

  const ExpertPlacement& before_;
  const ExpertPlacement& after_;
  int32_t layer_;
  int64_t bytes_per_slot_;
  int32_t ranks_per_node_;
  std::vector<int32_t> source_of_;  ///< [num_slots] -1: nothing left to write
  std::vector<int32_t> readers_;    ///< [num_slots] that still want what it holds
  std::vector<int32_t> uses_;       ///< [num_slots]
  std::vector<PlacementMove> steps_;
};

}  // namespace

int64_t moved_slots(const ExpertPlacement& before, const ExpertPlacement& after) {
  check_alike(before, after);
  int64_t moved = 0;
  for (std::size_t slot = 0; slot < after.slot_to_expert().size(); ++slot) {
    moved += after.slot_to_expert()[slot] != before.slot_to_expert()[slot] ? 1 : 0;
  }
  return moved;
}

std::vector<PlacementMove> schedule_moves(const ExpertPlacement& before,
                                          const ExpertPlacement& after, int32_t layer,
                                          int64_t bytes_per_slot, int32_t ranks_per_node) {
  check_alike(before, after);
  check_range("bytes_per_slot", bytes_per_slot, 0, std::numeric_limits<int64_t>::max());
  check_range("ranks_per_node", ranks_per_node, 1, kMaxPlacementRanks);
  return Schedule(before, after, layer, bytes_per_slot, ranks_per_node).steps();
}

int64_t busiest_rank_bytes(std::span<const PlacementMove> moves, int32_t num_ranks) {
  check_range("num_ranks", num_ranks, 1, kMaxPlacementRanks);
  std::vector<int64_t> sent(index_of(num_ranks));
  std::vector<int64_t> received(index_of(num_ranks));
  for (const PlacementMove& move : moves) {
    if (move.bytes == 0) continue;
    check_range("from_rank", move.from_rank, 0, num_ranks - 1);
    check_range("to_rank", move.to_rank, 0, num_ranks - 1);
    sent[index_of(move.from_rank)] += move.bytes;
    received[index_of(move.to_rank)] += move.bytes;
  }
  return std::max(*std::max_element(sent.begin(), sent.end()),
                  *std::max_element(received.begin(), received.end()));
}

}  // namespace switchyard
