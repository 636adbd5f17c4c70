// Every warp, barrier and memory intrinsic of the executor against its definition, in every order.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/intrinsics_kernels.h"
#include "tests/simt/orders.h"

namespace switchyard::test {
namespace {

class SimtIntrinsics : public testing::TestWithParam<NamedSettings> {
 protected:
  SimtIntrinsics() : scope_(GetParam().settings) { simt::reset(); }

  simt::ScopedSettings scope_;
};

INSTANTIATE_TEST_SUITE_P(Orders, SimtIntrinsics, testing::ValuesIn(kernel_orders()),
                         [](const auto& order) { return order.param.name; });

TEST_P(SimtIntrinsics, ShufflesStayInTheirSegment) {
  DeviceArray<int> out(4 * 32);
  for (const int width : {1, 2, 4, 8, 16, 32}) {
    for (int argument = 0; argument < 32; ++argument) {
      require_success(launch_shuffles(argument, width, out.data()));
      const std::vector<int> got = out.download();
      for (int lane = 0; lane < 32; ++lane) {
        const int first = lane / width * width;
        const int up = lane - argument;
        const int down = lane + argument;
        const int other = lane ^ argument;
        const std::array<int, 4> want = {first + argument % width, up >= first ? up : lane,
                                         down < first + width ? down : lane,
                                         other < first + width ? other : lane};
        for (size_t kind = 0; kind < want.size(); ++kind) {
          ASSERT_EQ(got[kind * 32 + static_cast<size_t>(lane)], 100 * want[kind])
              << "kind " << kind << ", lane " << lane << ", argument " << argument << ", width "
              << width;
        }
      }
    }
  }
}

TEST_P(SimtIntrinsics, ShufflesCarryAnyTypeOfUpToEightBytes) {
  DeviceArray<double> out(4 * 32);
  require_success(launch_shuffles_of_types(out.data()));
  const std::vector<double> got = out.download();
  for (size_t lane = 0; lane < 32; ++lane) {
    const size_t next = (lane + 1) % 32;
    EXPECT_EQ(got[lane], static_cast<double>(next) + 0.5);
    EXPECT_EQ(got[32 + lane], static_cast<double>(next));
    EXPECT_EQ(got[64 + lane], static_cast<double>(1ll << next));
    EXPECT_EQ(got[96 + lane], static_cast<double>(next) / 2);
  }
}

TEST_P(SimtIntrinsics, VotesCountEveryLane) {
  DeviceArray<VoteResults> out(32);
  for (const unsigned predicates : {0u, 1u, 0x80000000u, 0x7fffffffu, 0xaaaaaaaau, 0xffffffffu}) {
    require_success(launch_votes(predicates, out.data()));
    for (const VoteResults& got : out.download()) {
      EXPECT_EQ(got.ballot, predicates);
      EXPECT_EQ(got.any, predicates != 0);
      EXPECT_EQ(got.all, predicates == 0xffffffffu);
    }
  }
}

TEST_P(SimtIntrinsics, MatchesNameTheLanesWithTheSameValue) {
  DeviceArray<MatchResults> out(32);
  for (const int group_size : {1, 3, 8, 32}) {
    require_success(launch_matches(group_size, out.data()));
    const std::vector<MatchResults> got = out.download();
    for (int lane = 0; lane < 32; ++lane) {
      unsigned same = 0;
      for (int other = 0; other < 32; ++other) {
        if (other / group_size == lane / group_size) same |= 1u << other;
      }
      const MatchResults& result = got[static_cast<size_t>(lane)];
      EXPECT_EQ(result.any, same);
      EXPECT_EQ(result.any_wide, same);
      EXPECT_EQ(result.all, group_size == 32 ? 0xffffffffu : 0u);
      EXPECT_EQ(result.all_equal, group_size == 32);
    }
  }
}

TEST_P(SimtIntrinsics, ReductionsSpanTheWarp) {
  std::vector<int> values(32);
  for (int lane = 0; lane < 32; ++lane) values[static_cast<size_t>(lane)] = 1000003 * (lane - 16);
  values[5] = std::numeric_limits<int>::max();
  const DeviceArray<int> in(values);
  DeviceArray<Reductions> out(32);
  require_success(launch_reductions(in.data(), out.data()));

  const auto bits = std::vector<unsigned>(values.begin(), values.end());
  const auto fold = [&](unsigned start, auto combine) {
    return std::accumulate(bits.begin(), bits.end(), start, combine);
  };
  for (const Reductions& got : out.download()) {
    EXPECT_EQ(static_cast<unsigned>(got.sum), fold(0, std::plus<>()));  // wraps around
    EXPECT_EQ(got.lowest, *std::min_element(values.begin(), values.end()));
    EXPECT_EQ(got.highest, *std::max_element(values.begin(), values.end()));
    EXPECT_EQ(got.lowest_unsigned, *std::min_element(bits.begin(), bits.end()));
    EXPECT_EQ(got.highest_unsigned, *std::max_element(bits.begin(), bits.end()));
    EXPECT_EQ(got.conjunction, fold(~0u, std::bit_and<>()));
    EXPECT_EQ(got.disjunction, fold(0, std::bit_or<>()));
    EXPECT_EQ(got.difference, fold(0, std::bit_xor<>()));
  }
}

TEST_P(SimtIntrinsics, DisjointMasksMeetApart) {
  DeviceArray<unsigned> out(32);
  require_success(launch_split_warp(out.data()));
  const std::vector<unsigned> got = out.download();
  for (size_t lane = 0; lane < 32; ++lane) EXPECT_EQ(got[lane], lane % 2 == 1 ? 256u : 5u);
}

TEST_P(SimtIntrinsics, ActiveMaskNamesTheCallerAndNobodyElsewhere) {
  DeviceArray<unsigned> out(64);
  require_success(launch_active_masks(out.data()));
  const std::vector<unsigned> got = out.download();
  for (size_t lane = 0; lane < 32; ++lane) EXPECT_NE(got[lane] & 1u << lane, 0u);
  for (size_t lane = 0; lane < 8; ++lane) {
    EXPECT_NE(got[32 + lane] & 1u << lane, 0u);
    EXPECT_EQ(got[32 + lane] & ~0xffu, 0u);
  }
}

TEST_P(SimtIntrinsics, BarriersSpanTheBlock) {
  for (const dim3 block : {dim3(1), dim3(33), dim3(10, 7), dim3(1024)}) {
    const auto size = static_cast<int>(block.x * block.y);
    DeviceArray<BarrierResults> out(static_cast<size_t>(size));
    require_success(launch_barriers(block, out.data()));
    const std::vector<BarrierResults> got = out.download();
    for (int thread = 0; thread < size; ++thread) {
      const BarrierResults& result = got[static_cast<size_t>(thread)];
      ASSERT_EQ(result.neighbor, 7 * ((thread + 1) % size));
      ASSERT_EQ(result.count, (size + 2) / 3);
      ASSERT_EQ(result.any, 1);
      ASSERT_EQ(result.all, size == 1);
    }
  }
}

void expect_atomics(const AtomicResults& got, int num_blocks) {
  constexpr int kThreads = 96;
  const int sum = kThreads * (kThreads - 1) / 2 * num_blocks;
  const auto count = static_cast<unsigned>(kThreads * num_blocks);
  EXPECT_EQ(got.sum, sum);
  EXPECT_EQ(got.difference, -sum);
  EXPECT_EQ(got.lowest, -(kThreads - 1));
  EXPECT_EQ(got.highest, kThreads - 1);
  EXPECT_EQ(got.conjunction, 0u);
  EXPECT_EQ(got.disjunction, 127u);
  EXPECT_EQ(got.parity, num_blocks * 3 % 2 == 1 ? 0xffffffffu : 0u);
  EXPECT_EQ(got.up, count % 10);
  EXPECT_EQ(got.down, (10 - count % 10) % 10);
  EXPECT_EQ(got.exchanged, 5u);
  EXPECT_GE(got.swapped, 1u);
  EXPECT_LE(got.swapped, static_cast<unsigned>(kThreads));
  EXPECT_EQ(got.float_sum, static_cast<float>(count) / 2);
  EXPECT_EQ(got.wide_sum, static_cast<unsigned long long>(count) << 33);
}

TEST_P(SimtIntrinsics, AtomicsLoseNothing) {
  DeviceArray<AtomicResults> out(std::vector<AtomicResults>(1));
  require_success(launch_atomics(1, true, out.data()));
  expect_atomics(out.download()[0], 1);
  out.upload(std::vector<AtomicResults>(1));
  require_success(launch_atomics(4, false, out.data()));
  expect_atomics(out.download()[0], 4);
}

TEST_P(SimtIntrinsics, SpinningThreadsLetOthersRun) {
  const DeviceArray<int> lock(std::vector<int>(1));
  const DeviceArray<int> value(std::vector<int>(1));
  require_success(launch_lock(2, lock.data(), value.data()));
  EXPECT_EQ(value.download()[0], 192);
}

TEST_P(SimtIntrinsics, ThreadsKnowWhereTheyAre) {
  const dim3 grid(3, 2, 2);
  const dim3 block(5, 4, 3);
  DeviceArray<Position> out(size_t{12} * 60);
  require_success(launch_positions(grid, block, out.data()));
  const std::vector<Position> got = out.download();
  for (unsigned i = 0; i < got.size(); ++i) {
    const Position& position = got[i];
    const unsigned thread = i % 60;
    const unsigned block_index = i / 60;
    EXPECT_EQ(position.thread.x, thread % 5);
    EXPECT_EQ(position.thread.y, thread / 5 % 4);
    EXPECT_EQ(position.thread.z, thread / 20);
    EXPECT_EQ(position.block.x, block_index % 3);
    EXPECT_EQ(position.block.y, block_index / 3 % 2);
    EXPECT_EQ(position.block.z, block_index / 6);
    EXPECT_EQ(position.block_size.y, 4u);
    EXPECT_EQ(position.grid_size.x, 3u);
  }
}

TEST_P(SimtIntrinsics, WarpsAreNumberedThroughTheGrid) {
  constexpr size_t kThreads = size_t{3} * 4 * 32;
  DeviceArray<int64_t> out(3 * kThreads);
  require_success(launch_indices(3, 4, out.data()));
  const std::vector<int64_t> got = out.download();
  for (size_t thread = 0; thread < kThreads; ++thread) {
    EXPECT_EQ(got[thread], static_cast<int64_t>(thread % 32));
    EXPECT_EQ(got[kThreads + thread], static_cast<int64_t>(thread / 32 % 4));
    EXPECT_EQ(got[2 * kThreads + thread], static_cast<int64_t>(thread / 32));
  }
}

TEST_P(SimtIntrinsics, VectorCopiesKeepEveryByte) {
  std::vector<uint4> values;
  for (unsigned i = 0; i < 20; ++i) values.push_back({i, i + 100, i + 200, i + 300});
  const DeviceArray<uint4> in(values);
  DeviceArray<uint4> out(40);
  require_success(launch_vector_copies(in.data(), 20, out.data()));
  const std::vector<uint4> got = out.download();
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(got[i].x, values[i % 20].x);
    EXPECT_EQ(got[i].w, values[i % 20].w);
  }
}

TEST_P(SimtIntrinsics, DynamicSharedMemoryIsTheBlocksOwn) {
  for (const int num_values : {1, 1000, 40000}) {
    DeviceArray<int> out(3);
    const int64_t bytes = int64_t{num_values} * 4;
    require_success(launch_dynamic_shared(3, num_values, bytes, out.data()));
    const std::vector<int> got = out.download();
    for (int block = 0; block < 3; ++block) {
      EXPECT_EQ(got[static_cast<size_t>(block)],
                num_values * (num_values - 1) / 2 + block * num_values);
    }
  }
}

}  // namespace
}  // namespace switchyard::test
