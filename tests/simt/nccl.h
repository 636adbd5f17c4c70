// What a test may choose and learn about the stand-in for NCCL, whose ranks are threads of one
// process, each with a device of the runtime stand-in.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <string>

namespace switchyard::simt {

struct NcclSettings {
  int version = NCCL_VERSION_CODE;  ///< what ncclGetVersion() says
  /// How often ncclCommGetAsyncError() says that a call is in progress before it says what came of
  /// it.
  int polls_in_progress = 2;
  /// Whether ranks learn that another one aborted, as over a network whose connection it closes.
  bool tells_of_aborts = true;
};
NcclSettings& nccl_settings();

struct NcclStatistics {
  int64_t created = 0;
  int64_t destroyed = 0;
  int64_t aborted = 0;
  int64_t transfers = 0;  ///< sends and receives
  int64_t all_gathers = 0;
  int64_t all_to_alls = 0;
  /// Calls that NCCL's documentation forbids and a GPU may answer with anything.
  int64_t misuses = 0;
  std::string last_misuse{};
};
const NcclStatistics& nccl_statistics();

/// Lets all communicators of that rank meet an error, as of a network.
void break_nccl_rank(int rank, ncclResult_t error, const std::string& text);

/// Forgets all communicators and puts the settings back. No call may be under way.
void reset_nccl();

}  // namespace switchyard::simt
