#include "tests/simt/executor.h"

#include <cstdio>
#include <numeric>
#include <set>

#include "tests/simt/address_sanitizer.h"
#include "tests/simt/block.h"
#include "tests/simt/race_observer.h"
#include "tests/simt/scheduler.h"
#include "tests/simt/shared_memory.h"
#include "tests/simt/symbols.h"

namespace switchyard::simt {
namespace {

std::string kernel;
thread_local bool is_executing = false;  // on this host thread

/// Lets others see that this host thread runs kernels.
struct Executing {
  Executing() { is_executing = true; }
  Executing(const Executing&) = delete;
  Executing& operator=(const Executing&) = delete;
  ~Executing() { is_executing = false; }
};

void prepare_threads(dim3 size) {
  block->num_threads = static_cast<int>(size.x * size.y * size.z);
  block->num_warps = (block->num_threads + kLanes - 1) / kLanes;
  for (int i = 0; i < block->num_threads; ++i) {
    Thread& thread = block->threads[i];
    const auto index = static_cast<unsigned>(i);
    thread.index = i;
    thread.rank = static_cast<uint8_t>(block->rank);
    thread.position = {index % size.x, index / size.x % size.y, index / (size.x * size.y)};
    if (thread.fiber.context == nullptr) prepare_fiber(thread.fiber, run_fiber, thread.lane());
  }
}

/// The order of clusters: a multiple of each number modulo their count, which visits each once.
class ClusterOrder {
 public:
  explicit ClusterOrder(int64_t num_clusters) : num_clusters_(num_clusters) {
    if (settings().order == Order::kReverse) {
      first_ = num_clusters - 1;
      step_ = num_clusters - 1;
    } else if (settings().order == Order::kRandom) {
      first_ = choices.below(num_clusters);
      do {
        step_ = choices.below(num_clusters) | 1;
      } while (std::gcd(step_, num_clusters) != 1);
    }
  }
  [[nodiscard]] int64_t operator[](int64_t i) const {
    return static_cast<int64_t>((static_cast<__int128>(i) * step_ + first_) % num_clusters_);
  }

 private:
  int64_t num_clusters_;
  int64_t first_ = 0;
  int64_t step_ = 1;
};

uint3 position_of(dim3 grid, int64_t index) {
  return {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
          static_cast<unsigned>(index / (int64_t{grid.x} * grid.y))};
}

/// Runs the blocks of one cluster together; `index` counts clusters.
void run_cluster(const Launch& launch, int64_t index) {
  cluster.barrier = {};
  cluster.first_exited = nullptr;
  cluster.idle_atomics = 0;
  if (race_observer != nullptr) race_observer->begin_cluster();
  for (int rank = 0; rank < cluster.num_blocks; ++rank) {
    block = &cluster.blocks[rank];
    block->position = blockIdx = position_of(launch.grid, index * cluster.num_blocks + rank);
    begin_block_schedule();
    begin_shared_memory(launch.dynamic_shared_bytes);
    ++totals.blocks;
    totals.threads += block->num_threads;
  }
  const bool reverse = settings().order == Order::kReverse;
  block = &cluster.blocks[reverse ? cluster.num_blocks - 1 : 0];
  run_threads();
}

/// Fibers that a fault stopped in mid-kernel start anew. Device code owns nothing to unwind.
void forget_threads() {
  for (int rank = 0; rank < cluster.num_blocks; ++rank) {
    Block& member = cluster.blocks[rank];
    for (int i = 0; i < member.num_threads; ++i) {
      Thread& thread = member.threads[i];
      if (thread.state != ThreadState::kExited) {
        prepare_fiber(thread.fiber, run_fiber, thread.lane());
      }
      thread.state = ThreadState::kExited;
    }
  }
}

void name_kernel_in_sanitizer_reports() {
#if SIMT_HAS_ADDRESS_SANITIZER
  static const bool kDone = [] {
    __sanitizer_set_death_callback([] {
      if (in_kernel()) std::fprintf(stderr, "simt: the error above is in %s\n", where().c_str());
    });
    return true;
  }();
  static_cast<void>(kDone);
#endif
}

}  // namespace

Settings& settings() {
  static Settings instance;
  return instance;
}

bool in_kernel() { return current != nullptr && is_executing; }

const std::string& running_kernel() { return kernel; }

void check_launch(const Launch& launch) {
  const dim3 grid = launch.grid;
  const dim3 threads = launch.block;
  const int64_t num_threads = int64_t{threads.x} * threads.y * threads.z;
  const int64_t num_blocks = int64_t{grid.x} * grid.y * grid.z;
  constexpr unsigned kMaxGridSide = 65535;
  constexpr unsigned kMaxDepth = 64;
  if (num_threads < 1 || num_threads > kMaxThreads || threads.z > kMaxDepth || num_blocks < 1 ||
      grid.x > 0x7fffffffu || grid.y > kMaxGridSide || grid.z > kMaxGridSide) {
    throw Fault(FaultKind::kBadLaunch, "kernel " + function_name(launch.kernel) +
                                           " launched with " + std::to_string(num_blocks) +
                                           " blocks of " + std::to_string(num_threads) +
                                           " threads");
  }
}

void execute(const Launch& launch) {
  if (in_kernel()) throw Fault(FaultKind::kBadLaunch, "a launch from device code");
  kernel = function_name(launch.kernel);
  check_launch(launch);
  name_kernel_in_sanitizer_reports();
  watch_invalid_accesses();
  choices = test::RandomStream(settings().seed + static_cast<uint64_t>(totals.launches));
  blockDim = launch.block;
  gridDim = launch.grid;
  cluster.num_blocks = static_cast<int>(launch.cluster_blocks);
  for (int rank = 0; rank < cluster.num_blocks; ++rank) {
    block = &cluster.blocks[rank];
    block->rank = rank;
    prepare_threads(launch.block);
  }
  set_kernel_call(launch.call.get());
  ++totals.launches;
  static std::set<const void*> kernels;
  kernels.insert(launch.kernel);
  totals.kernels = static_cast<int64_t>(kernels.size());
  const Executing executing;

  if (race_observer != nullptr) {
    race_observer->begin_launch(launch);
  }
  const int64_t num_blocks = int64_t{gridDim.x} * gridDim.y * gridDim.z;
  const int64_t num_clusters = num_blocks / cluster.num_blocks;
  const ClusterOrder order(num_clusters);
  for (int64_t i = 0; i < num_clusters && !has_fault(); ++i) run_cluster(launch, order[i]);
  if (race_observer != nullptr) race_observer->end_launch();

  if (std::optional<Fault> fault = take_fault()) {
    forget_threads();
    throw Fault(*fault);
  }
}

}  // namespace switchyard::simt
