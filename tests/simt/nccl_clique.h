// The ranks behind the NCCL stand-in: which operation of one belongs to which of another, and when
// both may happen. Callers hold the runtime's lock.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/simt/nccl.h"
#include "tests/simt/runtime.h"

namespace switchyard::simt {

enum class NcclOperation { kSend, kReceive, kAllGather, kAllToAll };

/// What one ncclGroupEnd() hands to a stream: on a GPU one kernel, whose transfers go on side by
/// side.
struct NcclBatch;

struct NcclCall {
  NcclOperation operation = NcclOperation::kSend;
  const void* from = nullptr;
  void* to = nullptr;
  size_t bytes = 0;  ///< for one peer
  int peer = -1;
  NcclBatch* batch = nullptr;
  bool is_matched = false;
  bool is_done = false;
  /// Of a launched graph: what was captured, which is matched among what was captured and has its
  /// counterpart's number from then on.
  const NcclCall* captured = nullptr;
  int64_t number = 0;
};

struct NcclBatch {
  std::vector<std::unique_ptr<NcclCall>> calls;
  cudaStream_t stream = nullptr;
  std::shared_ptr<EventRecord> ended = std::make_shared<EventRecord>();
  bool is_enqueued = false;  ///< or part of a graph
  bool is_reached = false;   ///< its stream has come to it
  std::shared_ptr<Capture> capture;
};

struct NcclClique;

}  // namespace switchyard::simt

// What ncclComm_t points to; the name is NCCL's.
// NOLINTNEXTLINE(readability-identifier-naming)
struct ncclComm {
  std::shared_ptr<switchyard::simt::NcclClique> clique;
  int rank = 0;
  int device = 0;
  bool is_blocking = true;
  bool is_gone = false;  ///< destroyed or aborted
  bool is_finalizing = false;
  ncclResult_t state = ncclInProgress;
  int polls = 0;  ///< still to be answered with ncclInProgress
  std::string error;
  /// In order of issue. A batch begins when the one before it has ended, whatever their streams.
  std::deque<std::unique_ptr<switchyard::simt::NcclBatch>> batches;
  /// What graphs have captured, in order of issue. It never runs; each launch makes batches of it.
  std::vector<std::unique_ptr<switchyard::simt::NcclBatch>> captures;
};

namespace switchyard::simt {

/// Counts what NCCL's documentation forbids; NcclStatistics::misuses.
void misuse_nccl(const std::string& what);

/// Ranks with one unique id.
struct NcclClique {
  int size = 0;
  std::vector<ncclComm*> ranks;  ///< nullptr: not there yet
  bool has_begun = false;
  std::set<std::pair<int, int>> connections;  ///< pairs whose first transfer has been matched
  bool has_rings = false;                     ///< the first collective has been matched
  int64_t num_captured = 0;                   ///< operations of all ranks together

  /// To be called after whatever may let something go on.
  void progress();
  void break_all(ncclResult_t error, const std::string& text);
  static void break_rank(ncclComm& rank, ncclResult_t error, const std::string& text);
  /// A graph's launch has come to what `rank` captured.
  void launch(ncclComm& rank, const NcclBatch& captured, cudaStream_t stream);

 private:
  void begin();
  void match_transfers(bool are_captured);
  void match_collectives(bool are_captured);
  bool move();
  bool enqueue_one();
  void enqueue(NcclBatch& batch);
  void record_captures(ncclComm& rank);
  [[nodiscard]] bool is_connected(const ncclComm& rank, const NcclBatch& batch) const;
  void receive(const ncclComm& rank, NcclCall& call);
  void collect(const NcclCall& call);
};

}  // namespace switchyard::simt
