// Rows as MPI sees them: pieces of memory that travel as one message.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "nccl/mpi_header.h"
#include "switchyard/communicator.h"

namespace switchyard::nccl {

/// `num_bytes` from `address` on.
struct Piece {
  std::byte* address = nullptr;
  int64_t num_bytes = 0;
};

/// A message's memory, in the order in which its bytes travel. Neighbours are one piece.
class Pieces {
 public:
  void clear();
  void add(std::byte* address, int64_t num_bytes);
  /// The rows that go to `peer`.
  void add_sent(const SentRows& sent, int peer);
  /// Where the rows of `peer` go.
  void add_received(const ReceivedRows& received, int peer);

  [[nodiscard]] const std::vector<Piece>& all() const { return pieces_; }
  [[nodiscard]] int64_t num_bytes() const { return num_bytes_; }

 private:
  std::vector<Piece> pieces_;
  int64_t num_bytes_ = 0;
};

/// Copies the bytes of one message's memory to another's of as many.
void copy(const Pieces& from, const Pieces& to);

/// A datatype of MPI's, freed with this object unless it is MPI's own.
class MpiType {
 public:
  MpiType() = default;
  /// `num_bytes` bytes, which may be more than an int counts.
  static MpiType of_bytes(int64_t num_bytes);
  /// All the pieces; addresses are relative to the first one's.
  static MpiType of_pieces(const std::vector<Piece>& pieces);
  MpiType(MpiType&& other) noexcept : type_(std::exchange(other.type_, MPI_DATATYPE_NULL)) {}
  MpiType& operator=(MpiType&& other) noexcept {
    std::swap(type_, other.type_);
    return *this;
  }
  ~MpiType();

  [[nodiscard]] MPI_Datatype get() const { return type_; }

 private:
  explicit MpiType(MPI_Datatype committed);

  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

/// A message between this rank and a peer. Its memory must stay until the request is complete.
class RowMessage {
 public:
  Pieces& pieces() { return pieces_; }
  /// Copies what is sent into a buffer of its own where that is the faster way.
  MPI_Request send(int peer, int tag, MPI_Comm comm, int& error);
  MPI_Request receive(int peer, int tag, MPI_Comm comm, int& error);
  /// Once it is complete.
  void unpack();
  /// How much came, or would have come had there been room.
  [[nodiscard]] int64_t received_bytes(const MPI_Status& status) const;

 private:
  struct Place {
    void* address = nullptr;
    int count = 0;
    MPI_Datatype type = MPI_BYTE;
  };

  /// Decides how the message travels.
  void prepare();

  Pieces pieces_;
  MpiType type_;
  Place place_;
  Pieces buffer_pieces_;
  std::unique_ptr<std::byte[]> buffer_;
  int64_t buffer_bytes_ = 0;
  bool is_packed_ = false;
};

}  // namespace switchyard::nccl
