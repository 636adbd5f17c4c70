// The calls of <nccl.h> that the transport makes, between threads. A call is refused where NCCL
// refuses it; where NCCL would hang or corrupt memory, the ranks concerned meet an error instead.
#include "tests/simt/nccl.h"

#include <algorithm>
#include <cstring>

#include "tests/simt/device_memory.h"
#include "tests/simt/nccl_clique.h"

namespace switchyard::simt {
namespace {

struct NcclState {
  NcclSettings settings;
  NcclStatistics statistics;
  std::map<std::string, std::shared_ptr<NcclClique>> cliques;  // by unique id
  std::vector<std::unique_ptr<ncclComm>> ranks;                // those that are gone, too
  uint64_t num_ids = 0;
  std::string error;  // of a call without a communicator
};

NcclState& state() {
  // Never destroyed: what outlives it may still call.
  static auto* instance = new NcclState;
  return *instance;
}

/// What a host thread has said since its ncclGroupStart().
struct Group {
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  std::vector<std::pair<ncclComm*, std::unique_ptr<NcclBatch>>> batches;
};
Group& group() {
  thread_local Group instance;
  return instance;
}

ncclResult_t misuse(const std::string& what, ncclResult_t result = ncclInvalidArgument) {
  misuse_nccl(what);
  state().error = what;
  if (group().depth > 0) group().error = result;
  return result;
}

bool is_known(const ncclComm* comm) {
  return comm != nullptr && std::any_of(state().ranks.begin(), state().ranks.end(),
                                        [&](const auto& rank) { return rank.get() == comm; });
}

/// ncclSuccess for a communicator that may be used.
ncclResult_t check_usable(const ncclComm* comm, const char* call) {
  if (!is_known(comm)) return misuse(std::string(call) + " of no communicator");
  if (comm->is_gone) return misuse(std::string(call) + " of a communicator that is gone");
  return ncclSuccess;
}

/// And which is not busy with an earlier call.
ncclResult_t check_ready(const ncclComm* comm, const char* call) {
  const ncclResult_t usable = check_usable(comm, call);
  if (usable != ncclSuccess) return usable;
  if (comm->state == ncclInProgress || comm->polls > 0) {
    return misuse(std::string(call) + " before the call before it was seen to have ended");
  }
  if (comm->is_finalizing) return misuse(std::string(call) + " of a finalized communicator");
  if (comm->state != ncclSuccess && group().depth > 0) group().error = comm->state;
  return comm->state;
}

bool is_device_memory(const void* address, size_t bytes) {
  if (device_memory().holds(address, bytes)) return true;
  const auto* byte = static_cast<const char*>(address);
  const auto above = runtime().pinned().upper_bound(byte);
  if (above == runtime().pinned().begin()) return false;
  const auto& [begin, memory] = *std::prev(above);
  return byte + bytes <= begin + memory.bytes;
}

/// The device goes on without what was under way.
void finish_all(ncclComm& comm) {
  for (const auto& batch : comm.batches) runtime().finish(*batch->ended);
  comm.batches.clear();
}

/// Waits as NCCL does for a blocking communicator, or leaves that to the caller.
ncclResult_t end_call(ncclComm* comm) {
  if (!comm->is_blocking) {
    comm->polls = state().settings.polls_in_progress;
    return comm->state == ncclSuccess || comm->state == ncclInProgress ? ncclInProgress
                                                                       : comm->state;
  }
  while (comm->state == ncclInProgress) runtime().wait_for_others();
  return comm->state;
}

ncclResult_t end_group() {
  auto batches = std::move(group().batches);
  const ncclResult_t error = std::exchange(group().error, ncclSuccess);
  group().batches.clear();
  if (error != ncclSuccess) return error;
  for (auto& [comm, batch] : batches) {
    comm->state = ncclInProgress;
    if (batch->capture != nullptr) {
      comm->captures.push_back(std::move(batch));
    } else {
      comm->batches.push_back(std::move(batch));
    }
  }
  ncclResult_t result = ncclSuccess;
  for (auto& [comm, batch] : batches) comm->clique->progress();
  for (auto& [comm, batch] : batches) {
    const ncclResult_t ended = end_call(comm);
    if (ended != ncclSuccess) result = ended;
  }
  return result;
}

ncclResult_t add(ncclComm* comm, const char* name, NcclCall call, ncclDataType_t type,
                 cudaStream_t handle) {
  const auto guard = runtime().lock();
  const ncclResult_t ready = check_ready(comm, name);
  if (ready != ncclSuccess) return ready;
  const bool is_collective = call.peer < 0;
  const size_t all_bytes = call.bytes * static_cast<size_t>(comm->clique->size);
  const size_t received_bytes = call.to == nullptr ? 0 : is_collective ? all_bytes : call.bytes;
  const size_t sent_bytes = call.from == nullptr                         ? 0
                            : call.operation == NcclOperation::kAllToAll ? all_bytes
                                                                         : call.bytes;
  NcclStatistics& statistics = state().statistics;
  ++(call.operation == NcclOperation::kAllGather  ? statistics.all_gathers
     : call.operation == NcclOperation::kAllToAll ? statistics.all_to_alls
                                                  : statistics.transfers);
  if (type != ncclInt8 && type != ncclUint8) return misuse("elements of more than a byte");
  if (call.peer >= comm->clique->size) return misuse("a peer out of range");
  if (Runtime::device() != comm->device) return misuse("the communicator is of another device");
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr || stream->device != comm->device) {
    return misuse("no stream of the device");
  }
  if (stream->capture != nullptr && stream->capture->invalid) {
    if (group().depth > 0) group().error = ncclUnhandledCudaError;
    return ncclUnhandledCudaError;
  }
  if ((sent_bytes > 0 && !is_device_memory(call.from, sent_bytes)) ||
      (received_bytes > 0 && !is_device_memory(call.to, received_bytes))) {
    return misuse(std::string(name) + " of memory that the device cannot reach");
  }
  auto& batches = group().batches;
  const auto same = std::find_if(batches.begin(), batches.end(),
                                 [&](const auto& entry) { return entry.first == comm; });
  NcclBatch* batch = same == batches.end() ? nullptr : same->second.get();
  if (batch == nullptr) {
    batches.emplace_back(comm, std::make_unique<NcclBatch>());
    batch = batches.back().second.get();
    batch->stream = stream;
    batch->capture = stream->capture;
  } else if (batch->stream != stream) {
    return misuse("a group with two streams, which are not modelled");
  }
  call.batch = batch;
  batch->calls.push_back(std::make_unique<NcclCall>(call));
  return group().depth > 0 ? ncclSuccess : end_group();
}

ncclResult_t start_rank(ncclComm_t* comm, int size, ncclUniqueId id, int rank, bool is_blocking) {
  const auto guard = runtime().lock();
  *comm = nullptr;
  if (size < 1 || rank < 0 || rank >= size) return misuse("a rank out of range");
  std::shared_ptr<NcclClique>& clique =
      state().cliques[std::string(id.internal, sizeof(id.internal))];
  if (clique == nullptr) {
    clique = std::make_shared<NcclClique>();
    clique->size = size;
    clique->ranks.resize(static_cast<size_t>(size));
  }
  const bool fits = clique->size == size && clique->ranks[static_cast<size_t>(rank)] == nullptr;
  state().ranks.push_back(std::make_unique<ncclComm>());
  ncclComm* const made = state().ranks.back().get();
  made->clique = clique;
  made->rank = rank;
  made->device = Runtime::device();
  made->is_blocking = is_blocking;
  *comm = made;
  ++state().statistics.created;
  if (!fits) {
    NcclClique::break_rank(*made, ncclInvalidUsage,
                           "the rank is there already, or the sizes differ");
    return made->state;
  }
  clique->ranks[static_cast<size_t>(rank)] = made;
  clique->progress();
  return end_call(made);
}

}  // namespace

void misuse_nccl(const std::string& what) {
  ++state().statistics.misuses;
  state().statistics.last_misuse = what;
}

NcclSettings& nccl_settings() { return state().settings; }

const NcclStatistics& nccl_statistics() { return state().statistics; }

void break_nccl_rank(int rank, ncclResult_t error, const std::string& text) {
  const auto guard = runtime().lock();
  for (const auto& comm : state().ranks) {
    if (comm->rank == rank) NcclClique::break_rank(*comm, error, text);
  }
}

void reset_nccl() {
  const auto guard = runtime().lock();
  for (const auto& comm : state().ranks) finish_all(*comm);
  state() = NcclState{};
}

}  // namespace switchyard::simt

using namespace switchyard::simt;  // NOLINT(google-build-using-namespace)

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = nccl_settings().version;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInternalError:
      return "internal error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t comm) {
  thread_local std::string text;  // others may be writing it
  const auto guard = runtime().lock();
  text = is_known(comm) && !comm->error.empty() ? comm->error : state().error;
  return text.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const auto guard = runtime().lock();
  std::memset(id, 0x5a, sizeof(*id));
  const uint64_t number = ++state().num_ids;
  std::memcpy(id, &number, sizeof(number));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  return start_rank(comm, size, id, rank, config == nullptr || config->blocking != 0);
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return start_rank(comm, size, id, rank, true);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  const auto guard = runtime().lock();
  const ncclResult_t usable = check_usable(comm, "ncclCommGetAsyncError");
  if (usable != ncclSuccess) return usable;
  const bool has_failed = comm->state != ncclSuccess && comm->state != ncclInProgress;
  const bool is_busy = !has_failed && (comm->polls > 0 || comm->state == ncclInProgress);
  *result = is_busy ? ncclInProgress : comm->state;
  if (comm->polls > 0) --comm->polls;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  const auto guard = runtime().lock();
  const ncclResult_t ready = check_ready(comm, "ncclCommCount");
  if (ready == ncclSuccess) *count = comm->clique->size;
  return ready;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  const auto guard = runtime().lock();
  const ncclResult_t ready = check_ready(comm, "ncclCommUserRank");
  if (ready == ncclSuccess) *rank = comm->rank;
  return ready;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  const auto guard = runtime().lock();
  const ncclResult_t ready = check_ready(comm, "ncclCommCuDevice");
  if (ready == ncclSuccess) *device = comm->device;
  return ready;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const auto guard = runtime().lock();
  const ncclResult_t ready = check_ready(comm, "ncclCommFinalize");
  if (ready != ncclSuccess) return ready;
  comm->is_finalizing = true;
  comm->state = ncclInProgress;
  comm->clique->progress();
  return end_call(comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const auto guard = runtime().lock();
  const ncclResult_t usable = check_usable(comm, "ncclCommDestroy");
  if (usable != ncclSuccess) return usable;
  if (!comm->batches.empty()) return misuse("ncclCommDestroy amid an operation");
  comm->is_gone = true;
  ++state().statistics.destroyed;
  comm->clique->progress();
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const auto guard = runtime().lock();
  const ncclResult_t usable = check_usable(comm, "ncclCommAbort");
  if (usable != ncclSuccess) return usable;
  comm->is_gone = true;
  ++state().statistics.aborted;
  finish_all(*comm);
  if (state().settings.tells_of_aborts) {
    comm->clique->break_all(ncclRemoteError,
                            "rank " + std::to_string(comm->rank) + " closed the connection");
  }
  comm->clique->progress();
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const auto guard = runtime().lock();
  if (group().depth == 0) return misuse("ncclGroupEnd without ncclGroupStart", ncclInvalidUsage);
  return --group().depth > 0 ? ncclSuccess : end_group();
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  NcclCall call{.operation = NcclOperation::kSend, .from = from, .bytes = count, .peer = peer};
  return add(comm, "ncclSend", call, type, stream);
}

ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  NcclCall call{.operation = NcclOperation::kReceive, .to = to, .bytes = count, .peer = peer};
  return add(comm, "ncclRecv", call, type, stream);
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  NcclCall call{.operation = NcclOperation::kAllGather, .from = from, .to = to, .bytes = count};
  return add(comm, "ncclAllGather", call, type, stream);
}

ncclResult_t ncclAlltoAll(const void* from, void* to, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
  NcclCall call{.operation = NcclOperation::kAllToAll, .from = from, .to = to, .bytes = count};
  return add(comm, "ncclAlltoAll", call, type, stream);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
