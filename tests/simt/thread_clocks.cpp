#include "tests/simt/thread_clocks.h"

#include <algorithm>
#include <cstring>

#include "tests/simt/executor.h"

namespace switchyard::simt {
namespace {

constexpr uint32_t kMaxGeneration = (1u << 21) - 1;
constexpr uint32_t kMaxBlock = (1u << 24) - 1;
constexpr uint32_t kMaxPhase = (1u << 8) - 1;

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
  if (!own().waited[index(thread)]) span_->passes_on = true;
}

void ThreadClocks::begin_cluster() {
  cluster_ = next_generation(cluster_);
  for (int rank = 0; rank < cluster.num_blocks; ++rank) begin(blocks_[rank]);
}

void ThreadClocks::begin(BlockClocks& clocks) {
  clocks.epoch = 0;
  std::memset(clocks.warp_clocks, 0, sizeof clocks.warp_clocks);
  for (auto& warp : clocks.warp_clocks) {
    for (int lane = 0; lane < kLanes; ++lane) warp[lane][lane] = 1;
  }
  clocks.fenced.fill(false);
  clocks.waited.fill(false);
  clocks.phases.fill(0);
  for (Clocks& acquired : clocks.acquired_clocks) acquired.clear();
  clocks.released_clocks.clear();
  clocks.acquired_blocks.clear();
}

void ThreadClocks::barrier() {
  // Everything before it is ordered by the epoch alone, and what one thread knows all know.
  BlockClocks& clocks = own();
  ++clocks.epoch;
  for (Clocks& acquired : clocks.acquired_clocks) acquired.clear();
  clocks.released_clocks.clear();
  clocks.phases.fill(*std::max_element(clocks.phases.begin(), clocks.phases.end()));
}

void ThreadClocks::waited_for_cluster(int thread, unsigned num_waits) {
  raise_to(own().phases[index(thread)], num_waits);
}

void ThreadClocks::warp_barrier(int warp, unsigned lanes) {
  auto& clocks = own().warp_clocks[warp];
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
  return own().warp_clocks[thread / kLanes][lane][lane];
}

void ThreadClocks::atomic(const void* address, int64_t block_index, int thread) {
  BlockClocks& clocks = own();
  std::set<int64_t>& blocks = released_blocks_[address];
  Clocks& word = clocks.released_clocks[address];
  Clocks& acquired = clocks.acquired_clocks[index(thread)];
  for (const int64_t other : blocks) {
    if (other != block_index) clocks.acquired_blocks.insert(other);
  }
  for (const auto& [other, clock] : word) raise_to(acquired[other], clock);
  if (!clocks.fenced[index(thread)]) return;

  blocks.insert(block_index);
  blocks.insert(clocks.acquired_blocks.begin(), clocks.acquired_blocks.end());
  const int warp = thread / kLanes;
  const int lane = thread % kLanes;
  ++clocks.warp_clocks[warp][lane][lane];
  for (const auto& [other, clock] : acquired) raise_to(word[other], clock);
  for (int other = 0; other < kLanes; ++other) {
    const uint32_t clock = clocks.warp_clocks[warp][lane][other];
    if (clock > 0) raise_to(word[warp * kLanes + other], clock);
  }
}

Access ThreadClocks::stamp(int64_t block_index, int thread, bool shared) const {
  Access access;
  access.block = static_cast<uint32_t>(block_index) & kMaxBlock;
  access.phase = block->threads[thread].num_arrivals & kMaxPhase;
  access.generation = generation(shared) & kMaxGeneration;
  access.thread = static_cast<uint32_t>(thread) & (kMaxThreads - 1);
  access.epoch = static_cast<uint16_t>(low16(own().epoch));
  access.clock = static_cast<uint16_t>(low16(own_clock(thread)));
  return access;
}

bool ThreadClocks::is_ordered_in_cluster(const Access& earlier, int thread) const {
  const auto blocks = static_cast<int64_t>(cluster.num_blocks);
  if (earlier.block / blocks != (running_block() & int64_t{kMaxBlock}) / blocks) return false;
  // Phases wrap around: what the thread knows is at most one more than what others have done since.
  const uint32_t known = own().phases[index(thread)];
  return known > 0 && ((known - 1 - earlier.phase) & kMaxPhase) < kMaxPhase / 2;
}

bool ThreadClocks::is_ordered(const Access& earlier, int64_t block_index, int thread,
                              bool shared) const {
  const BlockClocks& clocks = own();
  if (earlier.generation != generation(shared)) {
    if (shared || clocks.waited[index(thread)]) return true;
    // Generations wrap around: what seems later than this launch is long done.
    return earlier.generation < span_->first_beside || earlier.generation > launch_;
  }
  if (is_ordered_in_cluster(earlier, thread)) return true;
  if (earlier.block != (static_cast<uint32_t>(block_index) & kMaxBlock)) {
    return clocks.acquired_blocks.contains(earlier.block);
  }
  const auto other = static_cast<int>(earlier.thread);
  if (other == thread || earlier.epoch != low16(clocks.epoch)) return true;
  const int warp = thread / kLanes;
  if (other / kLanes == warp &&
      clocks.warp_clocks[warp][thread % kLanes][other % kLanes] > earlier.clock) {
    return true;
  }
  const Clocks& acquired = clocks.acquired_clocks[index(thread)];
  const auto known = acquired.find(other);
  return known != acquired.end() && known->second > earlier.clock;
}

uint8_t ThreadClocks::initialized_mark(bool shared) const {
  constexpr uint32_t kMarks = 255;
  return shared ? static_cast<uint8_t>(cluster_ % kMarks + 1) : 1;
}

}  // namespace switchyard::simt
