#include "nccl/nccl_handle.h"

#include <cstring>

#include "nccl/refuse.h"

namespace switchyard::nccl {
namespace {

constexpr int kOldest = NCCL_VERSION(2, 18, 0);

int major_of(int code) { return code < 10000 ? code / 1000 : code / 10000; }

}  // namespace

std::string nccl_version_text(int code) {
  // Up to 2.8 the major version had one digit less behind it.
  const int step = code < 10000 ? 1000 : 10000;
  return text_of(code / step, ".", code % step / 100, ".", code % 100);
}

int check_nccl_version() {
  int code = 0;
  const ncclResult_t result = ncclGetVersion(&code);
  if (result != ncclSuccess) {
    throw Unavailable("ncclGetVersion: " + text_of_nccl(result, nullptr));
  }
  if (code < kOldest || major_of(code) != NCCL_MAJOR) {
    throw Unavailable(text_of("NCCL ", nccl_version_text(code), " was found, must be ",
                              nccl_version_text(kOldest), " or later of version ", NCCL_MAJOR,
                              "; this was compiled with ", nccl_version_text(NCCL_VERSION_CODE)));
  }
  return code;
}

std::string text_of_nccl(ncclResult_t result, ncclComm_t comm) {
  std::string text = ncclGetErrorString(result);
  const char* const last = ncclGetLastError(comm);
  if (last == nullptr || *last == '\0') return text;
  text += ": ";
  text.append(last, std::strcspn(last, "\n"));
  return text;
}

NcclHandle::NcclHandle(const NcclUniqueId& id, int rank, int size,
                       std::chrono::milliseconds timeout)
    : timeout_(timeout) {
  ncclUniqueId known;
  std::memcpy(&known, &id, sizeof(known));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = ncclCommInitRankConfig(&comm_, size, known, rank, &config);
  try {
    check(result, "ncclCommInitRankConfig");
  } catch (const NcclTrouble&) {
    abort();
    throw;
  }
}

NcclHandle::NcclHandle(ncclComm_t borrowed, std::chrono::milliseconds timeout)
    : comm_(borrowed), is_owned_(false), timeout_(timeout) {}

NcclHandle::~NcclHandle() {
  if (comm_ == nullptr || !is_owned_) return;
  try {
    check(ncclCommFinalize(comm_), "ncclCommFinalize");
    static_cast<void>(ncclCommDestroy(comm_));
  } catch (const std::exception&) {
    abort();
  }
}

ncclResult_t NcclHandle::state() const {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t result = ncclCommGetAsyncError(comm_, &state);
  return result == ncclSuccess ? state : result;
}

void NcclHandle::check(ncclResult_t result, const char* call) const {
  if (result == ncclInProgress) return settle(call);
  if (result != ncclSuccess) throw NcclTrouble(text_of(call, ": ", text_of_nccl(result, comm_)));
}

void NcclHandle::settle(const char* call) const {
  ncclResult_t result = ncclInProgress;
  const bool is_done = poll(Clock::now() + timeout_, [&] {
    result = state();
    return result != ncclInProgress;
  });
  if (!is_done) {
    throw NcclTrouble(text_of("the other ranks did not come within ", timeout_.count(), " ms (",
                              call, " is in progress)"));
  }
  check(result, call);
}

void NcclHandle::check_later_errors() const {
  const ncclResult_t result = state();
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw NcclTrouble(text_of_nccl(result, comm_));
}

void NcclHandle::abort() noexcept {
  if (comm_ == nullptr || !is_owned_) return;
  // The communicator is gone afterwards, whatever this returns.
  static_cast<void>(ncclCommAbort(comm_));
  comm_ = nullptr;
}

}  // namespace switchyard::nccl
