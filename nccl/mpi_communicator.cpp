// Ranks that are processes: every rank's rows in one message, from where they lie to where they
// belong.
#include "switchyard/mpi_communicator.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "nccl/mpi_batch.h"
#include "nccl/mpi_header.h"
#include "nccl/mpi_rows.h"
#include "nccl/mpi_state.h"
#include "nccl/mpi_tags.h"
#include "nccl/mpi_watch.h"
#include "nccl/refuse.h"
#include "nccl/shared_allocations.h"

namespace switchyard {

using nccl::check_mpi;
using nccl::MpiBatch;
using nccl::MpiCall;
using nccl::MpiCompletion;
using nccl::MpiTransfer;
using nccl::MpiWatch;
using nccl::PeerTrouble;
using nccl::RowMessage;
using nccl::text_of;

namespace {

struct GatherHeader {
  MpiCall call;
  int64_t num_bytes = 0;
};

// Of a gather's first message. Whatever the ranks disagree on, none is longer than this.
constexpr std::size_t kMaxGatherBytes = 4096;
constexpr std::size_t kMaxInlineBytes = kMaxGatherBytes - sizeof(GatherHeader);

/// What MPI may touch until its requests are complete.
struct Moving {
  explicit Moving(std::size_t size)
      : messages(2 * size), gather_memory((size + 1) * kMaxGatherBytes) {}

  [[nodiscard]] bool is_done() const { return headers.is_done() && bulk.is_done(); }
  RowMessage& message(int peer, bool sends) {
    return messages[2 * static_cast<std::size_t>(peer) + (sends ? 1 : 0)];
  }
  /// What goes to every rank in an all_gather.
  std::byte* gather_out() { return gather_memory.data(); }
  std::byte* gather_in(int peer) {
    return gather_memory.data() + (static_cast<std::size_t>(peer) + 1) * kMaxGatherBytes;
  }

  MpiBatch headers;
  MpiBatch bulk;
  std::vector<RowMessage> messages;  ///< received and sent, by peer
  std::vector<std::byte> gather_memory;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm owned, int rank, int size, const CommunicatorOptions& options)
      : Communicator(rank, size, Backend::kCpu, options),
        comm_(owned),
        watch_(std::make_unique<MpiWatch>(owned, rank, size,
                                          std::chrono::milliseconds(options.timeout_ms))),
        moving_(std::make_unique<Moving>(static_cast<std::size_t>(size))) {}

  ~MpiCommunicator() override {
    if (!nccl::is_mpi_running()) return;
    if (is_exchanging_) MpiCommunicator::do_abort("rank left amid an exchange");
    bool may_free = false;
    try {
      may_free = !has_failed_ && watch_->say_farewell();
    } catch (const std::exception&) {
      may_free = false;
    }
    watch_.reset();
    if (may_free) MPI_Comm_free(&comm_);
  }

  [[nodiscard]] const char* transport() const override { return "mpi"; }
  [[nodiscard]] bool moves_scattered_rows() const override { return true; }
  [[nodiscard]] bool can_lend(std::span<const std::byte> memory) const override {
    return memory.empty() || shared_.find(memory).allocation >= 0;
  }

 protected:
  void do_all_gather(const char* phase, std::span<const std::byte> mine,
                     std::span<std::byte> all) override {
    watched(phase, [&] { gather(phase, mine, all); });
  }

  void do_start(const char* phase, const SentRows& sent, const ReceivedRows& received,
                StreamView) override {
    watched(phase, [&] { post_exchange(phase, sent, received); });
  }

  void do_finish(const char* phase, const SentRows&, const ReceivedRows&, StreamView) override {
    watched(phase, [&] {
      // Peers may need this processor to come so far: a look that gives it away costs least here.
      check_for_strays(std::exchange(row_tag_before_, row_tag_));
      watch_->wait(moving_->bulk, [this](const MpiCompletion& done) { take(done); });
    });
    is_exchanging_ = false;
  }

  std::span<std::byte> do_allocate_shared(const char* phase, int64_t bytes) override {
    return shared_.allocate(rank(), size(), bytes, [&](auto mine, auto all) {
      watched(phase, [&] { gather(phase, mine, all); });
    });
  }

  // What a peer has written before it came to a gather is here after it.
  void do_lend(const char* phase, std::byte* mine, std::span<std::byte*> all) override {
    nccl::SharedPlace place;
    if (mine != nullptr) place = shared_.find({mine, 1});
    places_.resize(all.size());
    watched(phase, [&] {
      gather(phase, std::as_bytes(std::span(&place, 1)),
             std::as_writable_bytes(std::span(places_)));
    });
    for (std::size_t peer = 0; peer < all.size(); ++peer) {
      all[peer] = shared_.address(static_cast<int>(peer), places_[peer]);
    }
  }

  void do_give_back(const char* phase) override {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    watched(phase, [&] { gather(phase, {}, {}); });
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }

  void do_abort(const std::string& reason) noexcept override {
    nccl::note_mpi_failure();
    has_failed_ = true;
    is_exchanging_ = false;
    if (!nccl::is_mpi_running()) return;
    try {
      watch_->tell_failure(reason);
      drain();
    } catch (const std::exception&) {
      // Out of memory: nobody is told, and MPI keeps what it has.
    }
    if (!moving_->is_done()) static_cast<void>(moving_.release());
  }

 private:
  template <typename Work>
  void watched(const char* phase, const Work& work) const {
    try {
      work();
    } catch (const PeerTrouble& trouble) {
      fail(phase, trouble.peer(), trouble.what());
    }
  }

  void begin(MpiCall::Kind kind, const char* phase) {
    watch_->begin(kind, phase);
    moving_->headers.clear();
    moving_->bulk.clear();
  }

  void take(const MpiCompletion& done) const {
    if (done.transfer.kind == MpiTransfer::Kind::kRows) return take_rows(done);
    check_mpi(done.transfer.peer, done.error);
    if (done.transfer.kind == MpiTransfer::Kind::kGatherHeader) check_header(done.transfer.peer);
  }

  // Gathering: a header says what the rest is, so that ranks that disagree find out.

  [[nodiscard]] std::span<std::byte> slot(std::span<std::byte> all, int peer) const {
    return all.subspan(static_cast<std::size_t>(peer) * gathered_bytes_, gathered_bytes_);
  }

  void gather(const char* phase, std::span<const std::byte> mine, std::span<std::byte> all) {
    begin(MpiCall::Kind::kGather, phase);
    gathered_bytes_ = mine.size();
    post_gather(mine, all);
    if (!mine.empty()) std::memcpy(slot(all, rank()).data(), mine.data(), mine.size());
    check_for_strays(row_tag_before_);
    const auto take_done = [this](const MpiCompletion& done) { take(done); };
    watch_->wait(moving_->headers, take_done);
    const std::size_t inlined = std::min(mine.size(), kMaxInlineBytes);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank() || inlined == 0) continue;
      std::memcpy(slot(all, peer).data(), moving_->gather_in(peer) + sizeof(GatherHeader), inlined);
    }
    watch_->wait(moving_->bulk, take_done);
    // Rows that nobody expected have come before their sender's part of this.
    check_for_strays(std::exchange(row_tag_before_, 0));
  }

  void post_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
    const GatherHeader header{watch_->call(), static_cast<int64_t>(mine.size())};
    const std::size_t inlined = std::min(mine.size(), kMaxInlineBytes);
    std::memcpy(moving_->gather_out(), &header, sizeof(header));
    if (inlined > 0) std::memcpy(moving_->gather_out() + sizeof(header), mine.data(), inlined);
    const auto message_bytes = static_cast<int>(sizeof(header) + inlined);
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + size() - i) % size();
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(peer, MPI_Irecv(moving_->gather_in(peer), static_cast<int>(kMaxGatherBytes),
                                MPI_BYTE, peer, nccl::kGatherTag, comm_, &request));
      moving_->headers.add(request, {MpiTransfer::Kind::kGatherHeader, peer, 0});
      if (inlined < mine.size()) post_rest(peer, false, slot(all, peer).subspan(inlined));
    }
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + i) % size();
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(peer, MPI_Isend(moving_->gather_out(), message_bytes, MPI_BYTE, peer,
                                nccl::kGatherTag, comm_, &request));
      moving_->bulk.add(request, {MpiTransfer::Kind::kSendGather, peer, 0});
      if (inlined < mine.size()) {
        post_rest(peer, true,
                  {const_cast<std::byte*>(mine.data()) + inlined, mine.size() - inlined});
      }
    }
  }

  void post_rest(int peer, bool sends, std::span<std::byte> bytes) {
    RowMessage& rest = moving_->message(peer, sends);
    rest.pieces().clear();
    rest.pieces().add(bytes.data(), static_cast<int64_t>(bytes.size()));
    post(rest, peer, nccl::kGatherRestTag,
         {sends ? MpiTransfer::Kind::kSendGather : MpiTransfer::Kind::kGatherRest, peer, 0});
  }

  void post(RowMessage& message, int peer, int tag, const MpiTransfer& transfer) {
    int error = MPI_SUCCESS;
    const MPI_Request request = transfer.is_receive() ? message.receive(peer, tag, comm_, error)
                                                      : message.send(peer, tag, comm_, error);
    check_mpi(peer, error);
    moving_->bulk.add(request, transfer);
  }

  void check_header(int peer) const {
    GatherHeader header;
    std::memcpy(&header, moving_->gather_in(peer), sizeof(header));
    const MpiCall& call = watch_->call();
    if (header.call.phase_hash != call.phase_hash) watch_->fail_elsewhere(peer, header.call);
    if (header.call.round != call.round) {
      throw PeerTrouble(peer, text_of("is at ", header.call.text(), ", its call ",
                                      header.call.round, ", expected call ", call.round));
    }
    if (header.num_bytes != static_cast<int64_t>(gathered_bytes_)) {
      throw PeerTrouble(peer, text_of("gives ", header.num_bytes, " bytes to all_gather, expected ",
                                      gathered_bytes_));
    }
  }

  // Exchanging rows: both sides know how many there are, so they travel without a header.

  void post_exchange(const char* phase, const SentRows& sent, const ReceivedRows& received) {
    begin(MpiCall::Kind::kExchange, phase);
    is_exchanging_ = true;
    row_bytes_ = sent.rows.cols;
    row_tag_ = nccl::row_tag(watch_->call());
    // Before a peer reads from here: at the same time both may take half as long again.
    copy_own_rows(sent, received);
    // From the next rank on, so that not all send to the same one.
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + size() - i) % size();
      const int64_t count = received.offsets[peer + 1] - received.offsets[peer];
      if (count == 0 || row_bytes_ == 0) continue;
      RowMessage& message = moving_->message(peer, false);
      message.pieces().clear();
      message.pieces().add_received(received, peer);
      post(message, peer, row_tag_, {MpiTransfer::Kind::kRows, peer, count});
    }
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + i) % size();
      const int64_t count = sent.offsets[peer + 1] - sent.offsets[peer];
      if (count == 0 || row_bytes_ == 0) continue;
      RowMessage& message = moving_->message(peer, true);
      message.pieces().clear();
      message.pieces().add_sent(sent, peer);
      post(message, peer, row_tag_, {MpiTransfer::Kind::kSendRows, peer, count});
    }
  }

  void copy_own_rows(const SentRows& sent, const ReceivedRows& received) {
    const int64_t count = sent.offsets[rank() + 1] - sent.offsets[rank()];
    const int64_t expected = received.offsets[rank() + 1] - received.offsets[rank()];
    if (count != expected) {
      throw PeerTrouble(rank(), text_of("sends ", count, " rows, expected ", expected));
    }
    nccl::Pieces& from = moving_->message(rank(), true).pieces();
    nccl::Pieces& to = moving_->message(rank(), false).pieces();
    from.clear();
    to.clear();
    from.add_sent(sent, rank());
    to.add_received(received, rank());
    nccl::copy(from, to);
  }

  [[noreturn]] void fail_counts(int peer, int64_t num_bytes, int64_t expected) const {
    if (row_bytes_ == 0 || num_bytes % row_bytes_ != 0) {
      throw PeerTrouble(peer, text_of("sends ", num_bytes, " bytes, expected ", expected,
                                      " rows of ", row_bytes_));
    }
    throw PeerTrouble(peer,
                      text_of("sends ", num_bytes / row_bytes_, " rows, expected ", expected));
  }

  void take_rows(const MpiCompletion& done) const {
    const auto [kind, peer, num_rows] = done.transfer;
    RowMessage& message = moving_->message(peer, false);
    const int64_t expected = message.pieces().num_bytes();
    int error_class = MPI_SUCCESS;
    MPI_Error_class(done.error, &error_class);
    if (error_class != MPI_ERR_TRUNCATE) check_mpi(peer, done.error);
    const int64_t actual = message.received_bytes(done.status);
    // Some libraries say how much there was, others how much fitted.
    if (error_class == MPI_ERR_TRUNCATE && actual <= expected) {
      throw PeerTrouble(peer, text_of("sends more than the ", num_rows, " rows expected"));
    }
    if (actual != expected) fail_counts(peer, actual, num_rows);
    message.unpack();
  }

  /// Rows of an exchange that is over, from a peer of which this rank expected none.
  void check_for_strays(int row_tag) const {
    if (row_tag == 0) return;
    int is_here = 0;
    MPI_Status status;
    check_mpi(rank(), MPI_Iprobe(MPI_ANY_SOURCE, row_tag, comm_, &is_here, &status));
    if (is_here == 0) return;
    MPI_Count count = 0;
    MPI_Get_elements_x(&status, MPI_BYTE, &count);
    fail_counts(status.MPI_SOURCE, count, 0);
  }

  /// A receive that has not begun is taken back. One that has needs the peer, as this rank's own
  /// sends do; what does not end soon is left to MPI.
  void drain() {
    moving_->headers.cancel_receives();
    moving_->bulk.cancel_receives();
    const auto deadline = MpiWatch::Clock::now() + watch_->farewell();
    while (!moving_->is_done() && MpiWatch::Clock::now() < deadline) {
      moving_->headers.test();
      moving_->bulk.test();
      std::this_thread::yield();
    }
  }

  MPI_Comm comm_;
  std::unique_ptr<MpiWatch> watch_;
  std::unique_ptr<Moving> moving_;
  std::size_t gathered_bytes_ = 0;
  int64_t row_bytes_ = 0;
  int row_tag_ = 0;         // of the last exchange
  int row_tag_before_ = 0;  // of one whose strays are not looked for yet; 0: there is none
  bool is_exchanging_ = false;
  bool has_failed_ = false;
  nccl::SharedAllocations shared_;
  std::vector<nccl::SharedPlace> places_;  // what peers lend
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(int fortran_handle,
                                                    const CommunicatorOptions& options) {
  nccl::check_mpi_running();
  const MPI_Comm comm = MPI_Comm_f2c(fortran_handle);
  int is_inter = 0;
  if (comm != MPI_COMM_NULL) MPI_Comm_test_inter(comm, &is_inter);
  if (comm == MPI_COMM_NULL || is_inter != 0) {
    nccl::refuse("fortran_handle is ", fortran_handle, ", must be an intracommunicator's");
  }
  if (options.timeout_ms < 1) {
    nccl::refuse("timeout_ms is ", options.timeout_ms, ", must be 1 or more");
  }
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  return std::make_unique<MpiCommunicator>(nccl::duplicate_group(comm, rank, options), rank, size,
                                           options);
}

std::unique_ptr<Communicator> make_mpi_world_communicator(const CommunicatorOptions& options) {
  nccl::check_mpi_running();
  return make_mpi_communicator(MPI_Comm_c2f(MPI_COMM_WORLD), options);
}

}  // namespace switchyard
