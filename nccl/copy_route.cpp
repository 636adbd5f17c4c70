#include "nccl/copy_route.h"

namespace switchyard::nccl {
namespace {

// Two processors of an AMD EPYC, each of which overwrites what the other has read, GB/s of each
// while it writes and while it reads the other's:
//                       1 MB                      256 KB
//   one L3, through     23, 75                    7, 50
//   one L3, past        14, 19                    14, 20
//   two L3s, through    2, 21                     1.8, 22
//   two L3s, past       26, 33                    26, 28
constexpr double kSlowBytesASecond = 2.5e9;
// One turn may have been slow because another program had the processor, and a few in a row where
// its turns and these keep step.
constexpr int kSlowTurns = 4;
constexpr int kTurnsBetweenTrials = 128;
// Shorter ones say more of the clock.
constexpr int64_t kLeastBytes = int64_t{32} << 10;
// More than this pushes out of the caches what the ranks need besides.
constexpr int64_t kMostBytes = int64_t{2} << 20;

}  // namespace

bool CopyRoute::passes_caches(int64_t num_bytes) {
  if (num_bytes >= kMostBytes) return true;
  if (!is_slow_) return false;
  if (++num_passed_ < kTurnsBetweenTrials) return true;
  num_passed_ = 0;
  return false;
}

void CopyRoute::learn(int64_t num_bytes, double seconds) {
  if (num_bytes < kLeastBytes) return;
  if (static_cast<double>(num_bytes) >= seconds * kSlowBytesASecond) {
    is_slow_ = false;
    num_slow_ = 0;
  } else if (++num_slow_ >= kSlowTurns) {
    is_slow_ = true;
  }
}

}  // namespace switchyard::nccl
