#include "tests/simt/thread_clocks.h"

#include <algorithm>
#include <cstring>

namespace switchyard::simt {
namespace {

constexpr uint32_t kMaxGeneration = (1u << 21) - 1;

/// 0 stands for no access.
uint32_t next_generation(uint32_t generation) {
  return generation == kMaxGeneration ? 1 : generation + 1;
}

uint32_t low16(uint32_t value) { return value & 0xffffu; }

void raise_to(uint32_t& clock, uint32_t other) { clock = std::max(clock, other); }

}  // namespace

void ThreadClocks::begin_launch(const void* stream, bool dependent) {
  launch_ = next_generation(launch_);
  released_blocks_.clear();
  const auto known = latest_.find(stream);
  Span span{launch_, launch_, false};
  if (dependent && known != latest_.end()) {
    const Span& previous = known->second;
    span.first_beside = previous.passes_on ? previous.first_beside : previous.launch;
  }
  span_ = &(latest_[stream] = span);
}

void ThreadClocks::let_next_grid_start(int thread) {
  if (!waited_[index(thread)]) span_->passes_on = true;
}

void ThreadClocks::begin_block() {
  block_ = next_generation(block_);
  epoch_ = 0;
  std::memset(warp_clocks_, 0, sizeof warp_clocks_);
  for (auto& warp : warp_clocks_) {
    for (int lane = 0; lane < kLanes; ++lane) warp[lane][lane] = 1;
  }
  fenced_.fill(false);
  waited_.fill(false);
  for (Clocks& clocks : acquired_clocks_) clocks.clear();
  released_clocks_.clear();
  acquired_blocks_.clear();
}

void ThreadClocks::barrier() {
  // Everything before it is ordered by the epoch alone.
  ++epoch_;
  for (Clocks& clocks : acquired_clocks_) clocks.clear();
  released_clocks_.clear();
}

void ThreadClocks::warp_barrier(int warp, unsigned lanes) {
  auto& clocks = warp_clocks_[warp];
  uint32_t joint[kLanes] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) == 0) continue;
    for (int other = 0; other < kLanes; ++other) {
      raise_to(joint[other], clocks[lane][other] + (other == lane ? 1 : 0));
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) != 0) std::memcpy(clocks[lane], joint, sizeof joint);
  }
}

uint32_t ThreadClocks::own_clock(int thread) const {
  const int lane = thread % kLanes;
  return warp_clocks_[thread / kLanes][lane][lane];
}

void ThreadClocks::atomic(const void* address, int64_t block_index, int thread) {
  std::set<int64_t>& blocks = released_blocks_[address];
  Clocks& word = released_clocks_[address];
  Clocks& own = acquired_clocks_[index(thread)];
  for (const int64_t other : blocks) {
    if (other != block_index) acquired_blocks_.insert(other);
  }
  for (const auto& [other, clock] : word) raise_to(own[other], clock);
  if (!fenced_[index(thread)]) return;

  blocks.insert(block_index);
  blocks.insert(acquired_blocks_.begin(), acquired_blocks_.end());
  const int warp = thread / kLanes;
  const int lane = thread % kLanes;
  ++warp_clocks_[warp][lane][lane];
  for (const auto& [other, clock] : own) raise_to(word[other], clock);
  for (int other = 0; other < kLanes; ++other) {
    const uint32_t clock = warp_clocks_[warp][lane][other];
    if (clock > 0) raise_to(word[warp * kLanes + other], clock);
  }
}

Access ThreadClocks::stamp(int64_t block_index, int thread, bool shared) const {
  Access access;
  access.block = static_cast<uint32_t>(block_index);
  access.generation = generation(shared) & kMaxGeneration;
  access.thread = static_cast<uint32_t>(thread) & (kMaxThreads - 1);
  access.epoch = static_cast<uint16_t>(low16(epoch_));
  access.clock = static_cast<uint16_t>(low16(own_clock(thread)));
  return access;
}

bool ThreadClocks::is_ordered(const Access& earlier, int64_t block_index, int thread,
                              bool shared) const {
  if (earlier.generation != generation(shared)) {
    if (shared || waited_[index(thread)]) return true;
    // Generations wrap around: what seems later than this launch is long done.
    return earlier.generation < span_->first_beside || earlier.generation > launch_;
  }
  if (earlier.block != static_cast<uint32_t>(block_index)) {
    return acquired_blocks_.contains(earlier.block);
  }
  const auto other = static_cast<int>(earlier.thread);
  if (other == thread || earlier.epoch != low16(epoch_)) return true;
  const int warp = thread / kLanes;
  if (other / kLanes == warp &&
      warp_clocks_[warp][thread % kLanes][other % kLanes] > earlier.clock) {
    return true;
  }
  const Clocks& own = acquired_clocks_[index(thread)];
  const auto known = own.find(other);
  return known != own.end() && known->second > earlier.clock;
}

uint8_t ThreadClocks::initialized_mark(bool shared) const {
  constexpr uint32_t kMarks = 255;
  return shared ? static_cast<uint8_t>(block_ % kMarks + 1) : 1;
}

}  // namespace switchyard::simt
