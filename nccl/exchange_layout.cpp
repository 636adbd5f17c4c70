#include "nccl/exchange_layout.h"

#include <algorithm>

namespace switchyard::nccl {

void CountedRows::add_up() {
  for (std::size_t i = 0; i < counts.size(); ++i) offsets[i + 1] = offsets[i] + counts[i];
}

ExchangeLayout::ExchangeLayout(const ExpertPlacement& placement, int rank, int32_t block_rows)
    : sent(placement.num_ranks()),
      received(placement.num_ranks()),
      peer_rows(static_cast<std::size_t>(placement.num_slots())),
      placement_(placement),
      rank_(rank),
      block_rows_(block_rows),
      first_local_(placement.slot_offsets()[static_cast<std::size_t>(rank)]),
      num_local_(placement.num_slots_of(rank)) {
  const auto num_ranks = static_cast<std::size_t>(placement.num_ranks());
  const auto num_local = static_cast<std::size_t>(num_local_);
  segments.resize(num_ranks * num_local);
  for (std::size_t peer = 0; peer <= num_ranks; ++peer) {
    segment_offsets.push_back(static_cast<int64_t>(peer * num_local));
  }
  tokens_per_expert.resize(num_local);
  expert_offsets.resize(num_local + 1);
  rank_rows.resize(num_ranks);
}

void ExchangeLayout::lay_out(MatrixView<const int64_t> slot_counts) {
  const int32_t num_slots = placement_.num_slots();
  const int32_t num_ranks = placement_.num_ranks();
  // Row by row of the counts: what ranks before this one have, then what all have.
  std::vector<int64_t>& before = peer_rows;
  std::fill(before.begin(), before.end(), 0);
  totals_.assign(static_cast<std::size_t>(num_slots), 0);
  for (int32_t source = 0; source < num_ranks; ++source) {
    const int64_t* const counts = slot_counts.row(source);
    if (source == rank_) std::copy(totals_.begin(), totals_.end(), before.begin());
    for (int32_t slot = 0; slot < num_slots; ++slot) {
      totals_[static_cast<std::size_t>(slot)] += counts[slot];
    }
  }
  const int64_t* const own = slot_counts.row(rank_);
  for (int32_t peer = 0; peer < num_ranks; ++peer) {
    const auto index = static_cast<std::size_t>(peer);
    int64_t next_row = 0;
    int64_t num_sent = 0;
    for (int32_t slot = placement_.slot_offsets()[index];
         slot < placement_.slot_offsets()[index + 1]; ++slot) {
      const auto at = static_cast<std::size_t>(slot);
      peer_rows[at] += next_row;
      num_sent += own[slot];
      if (peer == rank_) {
        const auto local = static_cast<std::size_t>(slot - first_local_);
        tokens_per_expert[local] = totals_[at];
        expert_offsets[local] = next_row;
      }
      next_row += (totals_[at] + block_rows_ - 1) / block_rows_ * block_rows_;
    }
    sent.counts[index] = num_sent;
    rank_rows[index] = next_row;
  }
  expert_offsets.back() = rank_rows[static_cast<std::size_t>(rank_)];
  lay_out_segments(slot_counts);
  sent.add_up();
  received.add_up();
}

void ExchangeLayout::lay_out_segments(MatrixView<const int64_t> slot_counts) {
  const auto num_local = static_cast<std::size_t>(num_local_);
  std::vector<int64_t>& next = totals_;  // row of each local slot
  std::copy_n(expert_offsets.begin(), num_local, next.begin());
  for (int32_t source = 0; source < placement_.num_ranks(); ++source) {
    const int64_t* const counts = slot_counts.row(source) + first_local_;
    RowSegment* const to = segments.data() + static_cast<std::size_t>(source) * num_local;
    int64_t num_received = 0;
    for (std::size_t local = 0; local < num_local; ++local) {
      to[local] = {next[local], counts[local]};
      next[local] += counts[local];
      num_received += counts[local];
    }
    received.counts[static_cast<std::size_t>(source)] = num_received;
  }
}

}  // namespace switchyard::nccl
