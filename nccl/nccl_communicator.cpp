// Ranks that are GPUs: rows by grouped sends and receives in the caller's stream, bytes of the host
// through staging memory.
#include "switchyard/nccl_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>

#include "nccl/nccl_handle.h"
#include "nccl/nccl_staging.h"
#include "nccl/refuse.h"

namespace switchyard {

using nccl::check_cuda;
using nccl::NcclHandle;
using nccl::NcclStaging;
using nccl::NcclTrouble;
using nccl::refuse;
using nccl::text_of;

namespace {

/// In front of what a rank gathers, so that ranks that disagree find out.
struct GatherHeader {
  int64_t num_bytes = 0;
  std::array<char, 56> phase{};
};

// Of a gather's first message, the same on every rank whatever they gather.
constexpr std::size_t kFirstBytes = 1024;
constexpr std::size_t kFirstPayload = kFirstBytes - sizeof(GatherHeader);
static_assert(kFirstBytes <= NcclStaging::kMaxBytes);

std::chrono::milliseconds timeout_of(const CommunicatorOptions& options) {
  return std::chrono::milliseconds(options.timeout_ms);
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<NcclHandle> handle, int rank, int size,
                   const CommunicatorOptions& options)
      : Communicator(rank, size, Backend::kCuda, options),
        staging_(size),
        handle_(std::move(handle)) {}

  ~NcclCommunicator() override {
    // Who leaves by an exception does not wait for the others, who may be waiting for it.
    if (std::uncaught_exceptions() > num_exceptions_) handle_->abort();
  }

  [[nodiscard]] const char* transport() const override { return "nccl"; }
  [[nodiscard]] bool is_captured(StreamView stream) const override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(stream.get(), &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }

 protected:
  void do_all_gather(const char* phase, std::span<const std::byte> mine,
                     std::span<std::byte> all) override {
    watched(phase, [&] { gather(phase, mine, all); });
  }

  void do_start(const char* phase, const SentRows& sent, const ReceivedRows& received,
                StreamView stream) override {
    watched(phase, [&] {
      send_to_peers(sent, received, stream.get());
      copy_own_rows(sent, received, stream.get());
    });
  }

  void do_start_equal(const char* phase, const SentRows& sent, const ReceivedRows& received,
                      int64_t rows_per_rank, StreamView stream) override {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
    // The library may be older than its header.
    if (!has_all_to_all_) return do_start(phase, sent, received, stream);
    const auto bytes = static_cast<std::size_t>(rows_per_rank * sent.rows.cols);
    if (bytes == 0) return;
    watched(phase, [&] {
      handle_->check(ncclAlltoAll(sent.rows.data, received.rows.data, bytes, ncclUint8,
                                  handle_->get(), stream.get()),
                     "ncclAlltoAll");
    });
#else
    static_cast<void>(rows_per_rank);
    do_start(phase, sent, received, stream);
#endif
  }

  void do_finish(const char* phase, const SentRows&, const ReceivedRows&, StreamView) override {
    watched(phase, [&] { handle_->check_later_errors(); });
  }

  void do_wait(const char* phase, StreamView stream) override {
    watched(phase, [&] { nccl::wait_for(stream.get(), *handle_); });
  }

  void do_abort(const std::string&) noexcept override {
    if (!handle_->is_owned()) staging_.abandon();
    handle_->abort();
  }

 private:
  template <typename Work>
  void watched(const char* phase, const Work& work) const {
    try {
      work();
    } catch (const NcclTrouble& trouble) {
      fail(phase, trouble.what());
    }
  }

  // Gathering.

  void gather(const char* phase, std::span<const std::byte> mine, std::span<std::byte> all) {
    GatherHeader header;
    header.num_bytes = static_cast<int64_t>(mine.size());
    std::strncpy(header.phase.data(), phase, header.phase.size() - 1);
    std::array<std::byte, kFirstBytes> first{};
    const std::span<const std::byte> beginning = mine.first(std::min(mine.size(), kFirstPayload));
    std::memcpy(first.data(), &header, sizeof(header));
    std::copy(beginning.begin(), beginning.end(), first.begin() + sizeof(header));
    const std::span<const std::byte> firsts = staging_.gather(first, *handle_);
    for (int peer = 0; peer < size(); ++peer) {
      GatherHeader theirs;
      std::memcpy(&theirs, firsts.data() + static_cast<std::size_t>(peer) * kFirstBytes,
                  sizeof(theirs));
      check_header(phase, peer, header, theirs);
    }
    spread(firsts, kFirstBytes, sizeof(header), beginning.size(), 0, all);
    for (std::size_t at = beginning.size(); at < mine.size();) {
      const std::span<const std::byte> piece =
          mine.subspan(at, std::min(mine.size() - at, NcclStaging::kMaxBytes));
      spread(staging_.gather(piece, *handle_), piece.size(), 0, piece.size(), at, all);
      at += piece.size();
    }
  }

  /// Puts `num_bytes` of every rank, `from` on in its part of `pieces`, to `to` in its part of
  /// `all`.
  void spread(std::span<const std::byte> pieces, std::size_t piece_bytes, std::size_t from,
              std::size_t num_bytes, std::size_t to, std::span<std::byte> all) const {
    if (num_bytes == 0) return;
    const auto num_ranks = static_cast<std::size_t>(size());
    for (std::size_t peer = 0; peer < num_ranks; ++peer) {
      std::memcpy(all.data() + peer * (all.size() / num_ranks) + to,
                  pieces.data() + peer * piece_bytes + from, num_bytes);
    }
  }

  void check_header(const char* phase, int peer, const GatherHeader& mine,
                    const GatherHeader& theirs) const {
    if (theirs.phase != mine.phase) {
      fail(phase, peer,
           text_of("is at all_gather of ", theirs.phase.data(), ", expected all_gather of ",
                   mine.phase.data()));
    }
    if (theirs.num_bytes != mine.num_bytes) {
      fail(phase, peer,
           text_of("gives ", theirs.num_bytes, " bytes to all_gather, expected ", mine.num_bytes));
    }
  }

  // Exchanging. A pair without bytes is left out on both sides.

  void send_to_peers(const SentRows& sent, const ReceivedRows& received, cudaStream_t stream) {
    const auto row_bytes = static_cast<std::size_t>(sent.rows.cols);
    const auto bytes_of = [&](const VectorView<const int64_t>& offsets, int peer) {
      return static_cast<std::size_t>(offsets[peer + 1] - offsets[peer]) * row_bytes;
    };
    const ncclComm_t comm = handle_->get();
    ncclResult_t result = ncclGroupStart();
    handle_->check(result, "ncclGroupStart");
    const char* failed = nullptr;
    // From the next rank on, so that not all send to the same one.
    for (int i = 1; i < size() && failed == nullptr; ++i) {
      const int to = (rank() + i) % size();
      const int from = (rank() - i + size()) % size();
      const std::size_t out = bytes_of(sent.offsets, to);
      const std::size_t in = bytes_of(received.offsets, from);
      if (out > 0) {
        result = ncclSend(sent.rows.row(sent.offsets[to]), out, ncclUint8, to, comm, stream);
        if (result != ncclSuccess) failed = "ncclSend";
      }
      if (in > 0 && failed == nullptr) {
        result =
            ncclRecv(received.rows.row(received.offsets[from]), in, ncclUint8, from, comm, stream);
        if (result != ncclSuccess) failed = "ncclRecv";
      }
    }
    // What has been begun must be ended, even so.
    const ncclResult_t ended = ncclGroupEnd();
    if (failed != nullptr) handle_->check(result, failed);
    handle_->check(ended, "ncclGroupEnd");
  }

  void copy_own_rows(const SentRows& sent, const ReceivedRows& received,
                     cudaStream_t stream) const {
    const int64_t from = sent.offsets[rank()];
    const int64_t to = received.offsets[rank()];
    const int64_t count = sent.offsets[rank() + 1] - from;
    const int64_t expected = received.offsets[rank() + 1] - to;
    if (count != expected) {
      throw NcclTrouble(text_of("sends itself ", count, " rows, expects ", expected));
    }
    if (count == 0 || sent.rows.cols == 0) return;
    check_cuda(cudaMemcpyAsync(received.rows.row(to), sent.rows.row(from),
                               static_cast<std::size_t>(count * sent.rows.cols),
                               cudaMemcpyDeviceToDevice, stream),
               "cudaMemcpyAsync");
  }

  bool has_all_to_all_ = nccl::check_nccl_version() >= NCCL_VERSION(2, 28, 0);
  int num_exceptions_ = std::uncaught_exceptions();
  NcclStaging staging_;  // released when NCCL has ended
  std::unique_ptr<NcclHandle> handle_;
};

void check_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    throw Unavailable(text_of("no CUDA device: ", cudaGetErrorString(status)));
  }
}

/// What the first rank of a group tells the others.
struct Bootstrap {
  NcclUniqueId id;
  int version = 0;
  std::array<char, 256> trouble{};
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const NcclUniqueId& id, int rank, int size,
                                                     const CommunicatorOptions& options) {
  nccl::check_nccl_version();
  check_device();
  if (size < 1) refuse("size is ", size, ", must be 1 or more");
  nccl::check_range("rank", rank, 0, size - 1);
  if (options.timeout_ms < 1) refuse("timeout_ms is ", options.timeout_ms, ", must be 1 or more");
  try {
    return std::make_unique<NcclCommunicator>(
        std::make_unique<NcclHandle>(id, rank, size, timeout_of(options)), rank, size, options);
  } catch (const NcclTrouble& trouble) {
    throw CommunicationError(text_of("rank ", rank, " of ", size, ", start: ", trouble.what()));
  }
}

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& bootstrap,
                                                     const CommunicatorOptions& options) {
  Bootstrap mine;
  try {
    mine.version = nccl::check_nccl_version();
    check_device();
    if (bootstrap.rank() == 0) mine.id = create_nccl_unique_id();
  } catch (const Unavailable& error) {
    std::strncpy(mine.trouble.data(), error.what(), mine.trouble.size() - 1);
  }
  std::vector<Bootstrap> all(static_cast<std::size_t>(bootstrap.size()));
  bootstrap.all_gather("start of NCCL", std::as_bytes(std::span(&mine, 1)),
                       std::as_writable_bytes(std::span(all)));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].trouble[0] != '\0') {
      throw Unavailable(text_of("rank ", rank, ": ", all[rank].trouble.data()));
    }
    if (all[rank].version != all[0].version) {
      throw Unavailable(text_of("rank ", rank, ": NCCL is ",
                                nccl::nccl_version_text(all[rank].version), ", expected ",
                                nccl::nccl_version_text(all[0].version), " as on rank 0"));
    }
  }
  return make_nccl_communicator(all[0].id, bootstrap.rank(), bootstrap.size(), options);
}

std::unique_ptr<Communicator> borrow_nccl_communicator(ncclComm* comm,
                                                       const CommunicatorOptions& options) {
  nccl::check_nccl_version();
  check_device();
  if (comm == nullptr) refuse("comm is a null pointer");
  if (options.timeout_ms < 1) refuse("timeout_ms is ", options.timeout_ms, ", must be 1 or more");
  try {
    auto handle = std::make_unique<NcclHandle>(comm, timeout_of(options));
    int rank = 0;
    int size = 0;
    int device = 0;
    handle->check(ncclCommUserRank(comm, &rank), "ncclCommUserRank");
    handle->check(ncclCommCount(comm, &size), "ncclCommCount");
    handle->check(ncclCommCuDevice(comm, &device), "ncclCommCuDevice");
    int current = 0;
    check_cuda(cudaGetDevice(&current), "cudaGetDevice");
    if (device != current) {
      refuse("comm is of device ", device, ", must be of the current device, ", current);
    }
    return std::make_unique<NcclCommunicator>(std::move(handle), rank, size, options);
  } catch (const NcclTrouble& trouble) {
    throw CommunicationError(text_of("start: ", trouble.what()));
  }
}

}  // namespace switchyard
