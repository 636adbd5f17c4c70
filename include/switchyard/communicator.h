// Moves bytes between ranks: one interface over threads of a process, MPI and NCCL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/backend.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

namespace nccl {
class Staging;
}  // namespace nccl

struct CommunicatorOptions {
  int64_t timeout_ms = 30'000;  ///< of every wait for another rank; 1 or more
  /// Memory that each rank shares with the others where all are processes of one host, taken when
  /// an exchange first needs it: rows that may not be lent travel through it. 0: as messages.
  int64_t staging_bytes = 8 << 20;
};

/// Consecutive rows.
struct RowSegment {
  int64_t first_row = 0;
  int64_t num_rows = 0;

  bool operator==(const RowSegment&) const = default;
};

/// What a rank sends in an all-to-all, in the communicator's memory space; tables on the host.
struct SentRows {
  MatrixView<const std::byte> rows;
  VectorView<const int64_t> order;  ///< row of each one sent, by receiving rank; empty: 0, 1, 2…
  VectorView<const int64_t> offsets;  ///< [size + 1] first one sent to each rank
};

/// Where a rank wants what it gets.
struct ReceivedRows {
  MatrixView<std::byte> rows;
  VectorView<const int64_t> offsets;  ///< [size + 1] first one received from each rank
  /// Where they go, in order of arrival: by sending rank, then as sent. Empty: 0, 1, 2… A segment
  /// holds rows of one sender only.
  VectorView<const RowSegment> segments;
  VectorView<const int64_t> segment_offsets;  ///< [size + 1] first segment of each sending rank
};

/// One rank's end of a group. Every rank makes the same calls in the same order; one thread at a
/// time calls a rank's end. Every wait ends after timeout_ms with an error that names the rank, the
/// peer and the phase. After such an error, or abort() on any rank, the group is unusable and every
/// further call says so.
class Communicator {
 public:
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator();

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  /// Whose memory the rows are in: kCpu or kCuda.
  [[nodiscard]] Backend backend() const { return backend_; }
  [[nodiscard]] const CommunicatorOptions& options() const { return options_; }
  /// "in_process", "mpi" or "nccl".
  [[nodiscard]] virtual const char* transport() const = 0;
  /// Whether all memory may be lent: the ranks are threads.
  [[nodiscard]] virtual bool shares_memory() const { return false; }
  /// Whether this memory may be lent: any of a rank that is a thread; of a rank that is a process,
  /// what allocate_shared() gave it, and none at all.
  [[nodiscard]] virtual bool can_lend(std::span<const std::byte>) const { return shares_memory(); }
  /// Whether SentRows::order and ReceivedRows::segments may be given, and rows may have gaps
  /// between them: they then travel from where they lie to where they belong.
  [[nodiscard]] virtual bool moves_scattered_rows() const { return false; }
  /// Whether a CUDA graph captures the stream, so that nothing in it happens before a launch.
  [[nodiscard]] virtual bool is_captured(StreamView) const { return false; }

  /// Gathers `mine` of every rank, in order of rank. Blocks.
  ///
  /// @param phase  what the caller does, for errors; the same on every rank.
  /// @param mine   host memory, of the same size on every rank.
  /// @param all    host memory, size() times as much.
  /// @throws InvalidArgument     when the sizes disagree on this rank; nothing is sent.
  /// @throws CommunicationError  when another rank is late, gone, or in another phase.
  void all_gather(const char* phase, std::span<const std::byte> mine, std::span<std::byte> all);

  /// Returns when every rank has come here.
  void barrier(const char* phase);

  /// Sends each rank its rows and receives what the others send to this one; rows hold the same
  /// number of bytes on every rank. The views and their memory stay as they are until
  /// finish_all_to_all() returns, or it or abort() has failed the group.
  /// @throws InvalidArgument     when sizes disagree on this rank; nothing is sent then.
  /// @throws CommunicationError  as all_gather().
  void start_all_to_all(const char* phase, const SentRows& sent, const ReceivedRows& received,
                        StreamView stream = {});
  /// The same where every rank sends `rows_per_rank` rows to every rank, itself among them, in
  /// order of rank. Some transports have a way of their own for this, so all ranks call it or none.
  /// finish_all_to_all() ends it.
  void start_equal_all_to_all(const char* phase, const MatrixView<const std::byte>& sent,
                              const MatrixView<std::byte>& received, int64_t rows_per_rank,
                              StreamView stream = {});
  /// Host transports: returns when the rows are here and the sent ones may change. NCCL: at once;
  /// the stream goes on when they are.
  /// @throws CommunicationError  also for a peer that sends another number of rows than expected.
  void finish_all_to_all(StreamView stream = {});

  /// Returns when the stream has done what was enqueued, the exchanges of this communicator among
  /// it. Where a peer may never come, this takes the place of cudaStreamSynchronize(), which would
  /// wait for ever. Host transports: at once.
  /// @throws InvalidArgument     for a stream that is being captured; the capture goes on.
  /// @throws CommunicationError  after timeout_ms.
  void wait(const char* phase, StreamView stream = {});

  /// Memory that may be lent. Collective; each rank asks for what it needs. Zeroed, aligned to 64
  /// bytes; lives as long as this end.
  /// @return empty on every rank where one of them cannot take part: it is on another host, the
  ///         transport shares nothing, or there is not as much shared memory.
  /// @throws InvalidArgument  for a number of bytes below 1.
  [[nodiscard]] std::span<std::byte> allocate_shared(const char* phase, int64_t bytes);
  /// Gathers an address of memory that may be lent from every rank; all must have come here.
  /// Between this and give_back() the ranks may use what lies there.
  void lend(const char* phase, std::byte* mine, std::span<std::byte*> all);
  /// Returns when every rank is done with the others' memory.
  void give_back();

  /// For rows that may not be lent. Collective at the first call, which makes it.
  /// @return null on every rank where options().staging_bytes are not to be had.
  [[nodiscard]] nccl::Staging* staging(const char* phase);

  /// Fails the group for every rank, and returns when no peer uses this rank's memory any more. The
  /// others' waits end with an error that holds `reason`.
  void abort(std::string_view reason) noexcept;
  /// Why the group is unusable; empty while it is not.
  [[nodiscard]] const std::string& failure() const { return failure_; }

 protected:
  /// @throws InvalidArgument  for a timeout below 1 or staging_bytes below 0.
  Communicator(int rank, int size, Backend backend, const CommunicatorOptions& options);

  virtual void do_all_gather(const char* phase, std::span<const std::byte> mine,
                             std::span<std::byte> all) = 0;
  virtual void do_start(const char* phase, const SentRows& sent, const ReceivedRows& received,
                        StreamView stream) = 0;
  /// Rows that lie as offsets of equal steps say.
  virtual void do_start_equal(const char* phase, const SentRows& sent, const ReceivedRows& received,
                              int64_t rows_per_rank, StreamView stream);
  virtual void do_finish(const char* phase, const SentRows& sent, const ReceivedRows& received,
                         StreamView stream) = 0;
  virtual void do_wait(const char* phase, StreamView stream);
  virtual std::span<std::byte> do_allocate_shared(const char* phase, int64_t bytes);
  virtual void do_lend(const char* phase, std::byte* mine, std::span<std::byte*> all);
  virtual void do_give_back(const char* phase);
  virtual void do_abort(const std::string& reason) noexcept = 0;

  /// Throws CommunicationError with "rank R, peer P, phase: what".
  [[noreturn]] void fail(const char* phase, int peer, const std::string& what) const;
  /// The same where no peer is known to be at fault.
  [[noreturn]] void fail(const char* phase, const std::string& what) const;

 private:
  enum class State { kIdle, kExchanging, kLending };

  void check_idle(const char* phase) const;
  void check_exchange(const SentRows& sent, const ReceivedRows& received) const;
  template <typename Work>
  void guard(const Work& work);

  int rank_;
  int size_;
  Backend backend_;
  CommunicatorOptions options_;
  std::string failure_;
  State state_ = State::kIdle;
  std::string phase_;  // of what is under way
  SentRows sent_;
  ReceivedRows received_;
  std::vector<int64_t> equal_offsets_;
  std::unique_ptr<nccl::Staging> staging_;
  bool has_tried_staging_ = false;
};

}  // namespace switchyard
