#include "tests/simt/nccl_clique.h"

#include <algorithm>
#include <cstring>

#include "tests/simt/device_memory.h"
#include "tests/simt/race_observer.h"

namespace switchyard::simt {
namespace {

bool is_collective(const NcclCall& call) {
  return call.operation == NcclOperation::kAllGather || call.operation == NcclOperation::kAllToAll;
}

const char* name_of(NcclOperation operation) {
  switch (operation) {
    case NcclOperation::kSend:
      return "a send";
    case NcclOperation::kReceive:
      return "a receive";
    case NcclOperation::kAllGather:
      return "an all-gather";
    case NcclOperation::kAllToAll:
      return "an all-to-all";
  }
  return "?";
}

/// Calls of a rank that wait for their counterpart, in order of issue. What is captured waits for
/// what is captured.
template <typename Select>
std::vector<NcclCall*> unmatched(const ncclComm* rank, bool are_captured, const Select& select) {
  std::vector<NcclCall*> calls;
  if (rank == nullptr || rank->is_gone) return calls;
  const auto add = [&](const auto& batches) {
    for (const auto& batch : batches) {
      for (const auto& call : batch->calls) {
        if (!call->is_matched && select(*call)) calls.push_back(call.get());
      }
    }
  };
  are_captured ? add(rank->captures) : add(rank->batches);
  return calls;
}

/// Of a call that a graph launches; 0 of any other.
int64_t number_of(const NcclCall& call) {
  return call.captured == nullptr ? 0 : call.captured->number;
}

std::string origin_of(const NcclCall& call) {
  return call.captured == nullptr ? "the host's"
                                  : "of the graph's operation " + std::to_string(number_of(call));
}

void copy(void* to, const void* from, size_t bytes) {
  std::memmove(to, from, bytes);
  if (race_observer != nullptr) race_observer->initialized(to, bytes);
}

/// Whether a batch's transfers may happen now.
bool is_running(const NcclCall& call) { return call.batch->is_reached; }

}  // namespace

void NcclClique::break_rank(ncclComm& rank, ncclResult_t error, const std::string& text) {
  const bool has_failed = rank.state != ncclSuccess && rank.state != ncclInProgress;
  if (rank.is_gone || has_failed) return;
  rank.state = error;
  rank.polls = 0;
  rank.error = text;
}

void NcclClique::break_all(ncclResult_t error, const std::string& text) {
  for (ncclComm* const rank : ranks) {
    if (rank != nullptr) break_rank(*rank, error, text);
  }
}

void NcclClique::progress() {
  begin();
  if (!has_begun) return;
  for (const bool are_captured : {false, true}) {
    match_transfers(are_captured);
    match_collectives(are_captured);
  }
  for (ncclComm* const rank : ranks) record_captures(*rank);
  while (enqueue_one() || move()) {
  }
  // All have come to the end, and nothing is under way.
  const bool all_end = std::all_of(ranks.begin(), ranks.end(), [](const ncclComm* rank) {
    return rank->is_gone || (rank->is_finalizing && rank->batches.empty());
  });
  if (!all_end) return;
  for (ncclComm* const rank : ranks) {
    if (rank->is_finalizing && rank->state == ncclInProgress) rank->state = ncclSuccess;
  }
}

void NcclClique::begin() {
  if (has_begun || std::count(ranks.begin(), ranks.end(), nullptr) > 0) return;
  has_begun = true;
  if (std::any_of(ranks.begin(), ranks.end(), [](const ncclComm* rank) { return rank->is_gone; })) {
    return break_all(ncclRemoteError, "a rank is gone");
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (ranks[i]->device != ranks[j]->device) continue;
      break_all(ncclInvalidUsage, "Duplicate GPU detected : rank " + std::to_string(i) +
                                      " and rank " + std::to_string(j) + " both on CUDA device " +
                                      std::to_string(ranks[i]->device));
      return;
    }
  }
  for (ncclComm* const rank : ranks) {
    if (rank->state == ncclInProgress) rank->state = ncclSuccess;
  }
}

/// The first send of a rank to another belongs to the first receive there, and so on.
void NcclClique::match_transfers(bool are_captured) {
  for (int source = 0; source < size; ++source) {
    for (int destination = 0; destination < size; ++destination) {
      ncclComm* const sender = ranks[static_cast<size_t>(source)];
      ncclComm* const receiver = ranks[static_cast<size_t>(destination)];
      const auto sends = unmatched(sender, are_captured, [&](const NcclCall& call) {
        return call.operation == NcclOperation::kSend && call.peer == destination;
      });
      const auto receives = unmatched(receiver, are_captured, [&](const NcclCall& call) {
        return call.operation == NcclOperation::kReceive && call.peer == source;
      });
      for (size_t i = 0; i < std::min(sends.size(), receives.size()); ++i) {
        connections.insert({source, destination});
        sends[i]->is_matched = receives[i]->is_matched = true;
        if (are_captured) sends[i]->number = receives[i]->number = ++num_captured;
        const bool is_same_origin = number_of(*sends[i]) == number_of(*receives[i]);
        if (sends[i]->bytes == receives[i]->bytes && is_same_origin) continue;
        const std::string text =
            "rank " + std::to_string(source) + " sends " +
            (is_same_origin ? std::to_string(sends[i]->bytes) + " bytes" : origin_of(*sends[i])) +
            " to rank " + std::to_string(destination) + ", which receives " +
            (is_same_origin ? std::to_string(receives[i]->bytes) : origin_of(*receives[i]));
        break_rank(*sender, ncclInvalidUsage, text);
        break_rank(*receiver, ncclInvalidUsage, text);
      }
    }
  }
}

/// The first collective of every rank belongs together, and so on.
void NcclClique::match_collectives(bool are_captured) {
  while (true) {
    std::vector<NcclCall*> calls;
    for (const ncclComm* const rank : ranks) {
      const auto waiting = unmatched(rank, are_captured, is_collective);
      if (waiting.empty()) return;
      calls.push_back(waiting.front());
    }
    has_rings = true;
    if (are_captured) ++num_captured;
    for (size_t i = 0; i < calls.size(); ++i) {
      calls[i]->is_matched = true;
      if (are_captured) calls[i]->number = num_captured;
      const bool is_same = calls[i]->operation == calls[0]->operation &&
                           number_of(*calls[i]) == number_of(*calls[0]);
      if (is_same && calls[i]->bytes == calls[0]->bytes) continue;
      break_all(ncclInvalidUsage,
                "rank " + std::to_string(i) + " is at " + name_of(calls[i]->operation) + " of " +
                    std::to_string(calls[i]->bytes) + " bytes, " + origin_of(*calls[i]) +
                    ", rank 0 at " + name_of(calls[0]->operation) + " of " +
                    std::to_string(calls[0]->bytes) + ", " + origin_of(*calls[0]));
    }
  }
}

bool NcclClique::is_connected(const ncclComm& rank, const NcclBatch& batch) const {
  return std::all_of(batch.calls.begin(), batch.calls.end(), [&](const auto& call) {
    if (is_collective(*call)) return has_rings;
    const bool sends = call->operation == NcclOperation::kSend;
    return connections.contains(sends ? std::pair{rank.rank, call->peer}
                                      : std::pair{call->peer, rank.rank});
  });
}

/// Hands a batch that has its connections over to its stream; until then the group is in progress.
bool NcclClique::enqueue_one() {
  for (ncclComm* const rank : ranks) {
    if (rank->is_gone) continue;
    const auto next = std::find_if(rank->batches.begin(), rank->batches.end(),
                                   [](const auto& batch) { return !batch->is_enqueued; });
    if (next == rank->batches.end() || !is_connected(*rank, **next)) continue;
    if (rank->state == ncclInProgress && !rank->is_finalizing) rank->state = ncclSuccess;
    enqueue(**next);
    return true;
  }
  return false;
}

void NcclClique::enqueue(NcclBatch& batch) {
  batch.is_enqueued = true;
  // The stream may come to it at once, which ends it, or when it has been aborted.
  const cudaStream_t stream = batch.stream;
  const std::shared_ptr<EventRecord> ended = batch.ended;
  runtime().submit(stream, [this, &batch, ended] {
    if (ended->done) return;
    batch.is_reached = true;
    while (move()) {
    }
  });
  runtime().wait_external(stream, ended);
}

/// Makes what has its connections part of its graph; until then the call is in progress.
void NcclClique::record_captures(ncclComm& rank) {
  if (rank.is_gone) return;
  for (const auto& batch : rank.captures) {
    if (batch->is_enqueued) continue;
    if (!is_connected(rank, *batch)) return;
    batch->is_enqueued = true;
    if (batch->stream->capture != batch->capture) {
      return break_rank(rank, ncclInvalidUsage, "a capture was ended while a call was in progress");
    }
    if (rank.state == ncclInProgress && !rank.is_finalizing) rank.state = ncclSuccess;
    const NcclBatch* const captured = batch.get();
    Runtime::capture_part(batch->stream, [this, &rank, captured](cudaStream_t stream) {
      launch(rank, *captured, runtime().stream(stream));
      return cudaSuccess;
    });
  }
}

void NcclClique::launch(ncclComm& rank, const NcclBatch& captured, cudaStream_t stream) {
  if (rank.is_gone) return misuse_nccl("a graph of a communicator that is gone was launched");
  if (stream->capture != nullptr || stream->device != rank.device) {
    return misuse_nccl("a graph was launched in a stream that is captured or of another device");
  }
  auto again = std::make_unique<NcclBatch>();
  again->stream = stream;
  for (const auto& call : captured.calls) {
    auto copied = std::make_unique<NcclCall>(*call);
    copied->batch = again.get();
    copied->captured = call.get();
    copied->is_matched = false;
    again->calls.push_back(std::move(copied));
  }
  NcclBatch& launched = *again;
  launched.is_enqueued = true;
  rank.batches.push_back(std::move(again));
  progress();
  enqueue(launched);
}

/// Of all that is not done, the first there belongs to the first here.
void NcclClique::receive(const ncclComm& rank, NcclCall& call) {
  const ncclComm& sender = *ranks[static_cast<size_t>(call.peer)];
  if (sender.is_gone || sender.batches.empty()) return;
  const auto& theirs = sender.batches.front()->calls;
  const auto found = std::find_if(theirs.begin(), theirs.end(), [&](const auto& candidate) {
    return candidate->operation == NcclOperation::kSend && candidate->peer == rank.rank &&
           !candidate->is_done;
  });
  if (found == theirs.end() || !is_running(**found)) return;
  copy(call.to, (*found)->from, call.bytes);
  (*found)->is_done = call.is_done = true;
}

void NcclClique::collect(const NcclCall& call) {
  std::vector<NcclCall*> all;
  for (const ncclComm* const peer : ranks) {
    if (peer->is_gone || peer->batches.empty()) return;
    const auto& theirs = peer->batches.front()->calls;
    const auto found = std::find_if(theirs.begin(), theirs.end(), [](const auto& candidate) {
      return is_collective(*candidate) && !candidate->is_done;
    });
    if (found == theirs.end() || !is_running(**found)) return;
    all.push_back(found->get());
  }
  for (size_t to = 0; to < all.size(); ++to) {
    for (size_t from = 0; from < all.size(); ++from) {
      const size_t at = call.operation == NcclOperation::kAllGather ? 0 : to * call.bytes;
      copy(static_cast<char*>(all[to]->to) + from * call.bytes,
           static_cast<const char*>(all[from]->from) + at, call.bytes);
    }
  }
  for (NcclCall* const each : all) each->is_done = true;
}

/// Moves what can be moved, and ends batches of which nothing is left.
bool NcclClique::move() {
  const OpenDeviceMemory open;
  bool has_ended = false;
  for (ncclComm* const rank : ranks) {
    const bool has_failed = rank->state != ncclSuccess && rank->state != ncclInProgress;
    if (rank->is_gone || has_failed || rank->batches.empty()) continue;
    if (!rank->batches.front()->is_reached) continue;
    for (const auto& call : rank->batches.front()->calls) {
      if (call->is_done || !call->is_matched) continue;
      if (call->operation == NcclOperation::kReceive) receive(*rank, *call);
      if (is_collective(*call)) collect(*call);
    }
  }
  for (ncclComm* const rank : ranks) {
    if (rank->is_gone || rank->batches.empty()) continue;
    const auto& calls = rank->batches.front()->calls;
    if (!std::all_of(calls.begin(), calls.end(), [](const auto& call) { return call->is_done; })) {
      continue;
    }
    runtime().finish(*rank->batches.front()->ended);
    rank->batches.pop_front();
    has_ended = true;
  }
  return has_ended;
}

}  // namespace switchyard::simt
