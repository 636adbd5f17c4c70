#include "nccl/mpi_rows.h"

#include <algorithm>
#include <climits>
#include <cstring>

#include "nccl/refuse.h"

namespace switchyard::nccl {
namespace {

// Messages of pieces up to this long, on average, go through a buffer of their own: 2048 rows of 16
// to 256 bytes arrive up to five times as early, where longer ones gain nothing (4 ranks, Open
// MPI).
constexpr int64_t kLongestPackedPiece = 256;

// Longer copies go past the caches, which costs a tenth of 16 MiB's time.
constexpr int64_t kCopiedBytes = 1 << 17;

// What of_bytes() and longer pieces are made of.
constexpr int kChunkBytes = 1 << 30;

MPI_Aint distance(const Piece& from, const Piece& to) { return to.address - from.address; }

/// Whether pieces of one length follow each other at one distance.
bool are_even(const std::vector<Piece>& pieces) {
  const MPI_Aint step = distance(pieces[0], pieces[1]);
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    if (pieces[i].num_bytes != pieces[0].num_bytes) return false;
    if (distance(pieces[i - 1], pieces[i]) != step) return false;
  }
  return true;
}

int64_t longest(const std::vector<Piece>& pieces) {
  int64_t num_bytes = 0;
  for (const Piece& piece : pieces) num_bytes = std::max(num_bytes, piece.num_bytes);
  return num_bytes;
}

}  // namespace

void Pieces::clear() {
  pieces_.clear();
  num_bytes_ = 0;
}

void Pieces::add(std::byte* address, int64_t num_bytes) {
  if (num_bytes == 0) return;
  num_bytes_ += num_bytes;
  if (!pieces_.empty() && pieces_.back().address + pieces_.back().num_bytes == address) {
    pieces_.back().num_bytes += num_bytes;
  } else {
    pieces_.push_back({address, num_bytes});
  }
}

void Pieces::add_sent(const SentRows& sent, int peer) {
  // MPI and Piece know no const; what is sent is only read.
  const MatrixView<std::byte> rows(const_cast<std::byte*>(sent.rows.data), sent.rows.rows,
                                   sent.rows.cols, sent.rows.row_stride);
  const int64_t first = sent.offsets[peer];
  const int64_t count = sent.offsets[peer + 1] - first;
  if (sent.order.empty() && rows.row_stride == rows.cols) {
    return add(rows.row(first), count * rows.cols);
  }
  for (int64_t i = first; i < first + count; ++i) {
    add(rows.row(sent.order.empty() ? i : sent.order[i]), rows.cols);
  }
}

void Pieces::add_received(const ReceivedRows& received, int peer) {
  const MatrixView<std::byte>& rows = received.rows;
  const auto add_rows = [&](int64_t first, int64_t count) {
    if (rows.row_stride == rows.cols) return add(rows.row(first), count * rows.cols);
    for (int64_t i = 0; i < count; ++i) add(rows.row(first + i), rows.cols);
  };
  if (received.segment_offsets.empty()) {
    const int64_t first = received.offsets[peer];
    return add_rows(first, received.offsets[peer + 1] - first);
  }
  for (int64_t i = received.segment_offsets[peer]; i < received.segment_offsets[peer + 1]; ++i) {
    add_rows(received.segments[i].first_row, received.segments[i].num_rows);
  }
}

void copy(const Pieces& from, const Pieces& to) {
  const Piece* source = from.all().data();
  const Piece* target = to.all().data();
  int64_t source_at = 0;
  int64_t target_at = 0;
  for (int64_t left = from.num_bytes(); left > 0;) {
    const int64_t step =
        std::min({kCopiedBytes, source->num_bytes - source_at, target->num_bytes - target_at});
    std::memcpy(target->address + target_at, source->address + source_at,
                static_cast<std::size_t>(step));
    left -= step;
    source_at += step;
    target_at += step;
    if (source_at == source->num_bytes) {
      ++source;
      source_at = 0;
    }
    if (target_at == target->num_bytes) {
      ++target;
      target_at = 0;
    }
  }
}

MpiType::MpiType(MPI_Datatype committed) : type_(committed) { MPI_Type_commit(&type_); }

MpiType::~MpiType() {
  if (type_ == MPI_DATATYPE_NULL || type_ == MPI_BYTE) return;
  int ended = 0;
  MPI_Finalized(&ended);
  if (ended == 0) MPI_Type_free(&type_);
}

MpiType MpiType::of_bytes(int64_t num_bytes) {
  MPI_Datatype type = MPI_DATATYPE_NULL;
  if (num_bytes <= INT_MAX) {
    MPI_Type_contiguous(static_cast<int>(num_bytes), MPI_BYTE, &type);
    return MpiType(type);
  }
  const int64_t num_chunks = num_bytes / kChunkBytes;
  MPI_Datatype chunk = MPI_DATATYPE_NULL;
  MPI_Type_contiguous(kChunkBytes, MPI_BYTE, &chunk);
  const int counts[2] = {static_cast<int>(num_chunks), static_cast<int>(num_bytes % kChunkBytes)};
  const MPI_Aint places[2] = {0, num_chunks * kChunkBytes};
  const MPI_Datatype types[2] = {chunk, MPI_BYTE};
  MPI_Type_create_struct(2, counts, places, types, &type);
  MPI_Type_free(&chunk);
  return MpiType(type);
}

MpiType MpiType::of_pieces(const std::vector<Piece>& pieces) {
  if (pieces.size() > INT_MAX) {
    refuse("a peer's rows lie in ", pieces.size(), " places, must be at most ", INT_MAX);
  }
  const int count = static_cast<int>(pieces.size());
  MPI_Datatype type = MPI_DATATYPE_NULL;
  std::vector<MPI_Aint> places(pieces.size());
  std::vector<int> lengths(pieces.size(), 1);
  for (std::size_t i = 0; i < pieces.size(); ++i) places[i] = distance(pieces[0], pieces[i]);
  if (longest(pieces) > INT_MAX) {
    std::vector<MpiType> owned;
    std::vector<MPI_Datatype> types;
    for (const Piece& piece : pieces) {
      owned.push_back(of_bytes(piece.num_bytes));
      types.push_back(owned.back().get());
    }
    MPI_Type_create_struct(count, lengths.data(), places.data(), types.data(), &type);
  } else if (count > 1 && are_even(pieces)) {
    MPI_Type_create_hvector(count, static_cast<int>(pieces[0].num_bytes),
                            distance(pieces[0], pieces[1]), MPI_BYTE, &type);
  } else {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      lengths[i] = static_cast<int>(pieces[i].num_bytes);
    }
    MPI_Type_create_hindexed(count, lengths.data(), places.data(), MPI_BYTE, &type);
  }
  return MpiType(type);
}

void RowMessage::prepare() {
  const std::vector<Piece>& all = pieces_.all();
  const int64_t num_bytes = pieces_.num_bytes();
  is_packed_ =
      all.size() > 1 && num_bytes <= kLongestPackedPiece * static_cast<int64_t>(all.size());
  std::byte* address = all[0].address;
  if (is_packed_) {
    if (buffer_bytes_ < num_bytes) {
      buffer_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(num_bytes));
      buffer_bytes_ = num_bytes;
    }
    address = buffer_.get();
    buffer_pieces_.clear();
    buffer_pieces_.add(address, num_bytes);
  }
  if (!is_packed_ && all.size() > 1) {
    type_ = MpiType::of_pieces(all);
    place_ = {address, 1, type_.get()};
  } else if (num_bytes > INT_MAX) {
    type_ = MpiType::of_bytes(num_bytes);
    place_ = {address, 1, type_.get()};
  } else {
    place_ = {address, static_cast<int>(num_bytes), MPI_BYTE};
  }
}

MPI_Request RowMessage::send(int peer, int tag, MPI_Comm comm, int& error) {
  prepare();
  if (is_packed_) copy(pieces_, buffer_pieces_);
  MPI_Request request = MPI_REQUEST_NULL;
  error = MPI_Isend(place_.address, place_.count, place_.type, peer, tag, comm, &request);
  return request;
}

MPI_Request RowMessage::receive(int peer, int tag, MPI_Comm comm, int& error) {
  prepare();
  MPI_Request request = MPI_REQUEST_NULL;
  error = MPI_Irecv(place_.address, place_.count, place_.type, peer, tag, comm, &request);
  return request;
}

void RowMessage::unpack() {
  if (is_packed_) copy(buffer_pieces_, pieces_);
}

int64_t RowMessage::received_bytes(const MPI_Status& status) const {
  MPI_Count count = 0;
  MPI_Get_elements_x(&status, place_.type, &count);
  return count == MPI_UNDEFINED ? -1 : static_cast<int64_t>(count);
}

}  // namespace switchyard::nccl
