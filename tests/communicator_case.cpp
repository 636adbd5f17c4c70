#include "tests/communicator_case.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "switchyard/buffer.h"

namespace switchyard::test {
namespace {

/// Byte `i` of the `row`-th row from `source` to `destination`.
std::byte byte_of(int source, int destination, int64_t row, int64_t i) {
  return static_cast<std::byte>(source * 31 + destination * 17 + row * 7 + i * 3 + 1);
}

/// A permutation of [0, count) without fixed steps.
std::vector<int64_t> shuffled(int64_t count) {
  std::vector<int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  uint64_t state = 12345;
  for (std::size_t i = order.size(); i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  return order;
}

std::vector<int64_t> offsets_of(const Communicator& communicator, RowCount count, bool sent) {
  std::vector<int64_t> offsets{0};
  for (int peer = 0; peer < communicator.size(); ++peer) {
    offsets.push_back(offsets.back() +
                      (sent ? count(communicator.rank(), peer) : count(peer, communicator.rank())));
  }
  return offsets;
}

VectorView<const int64_t> view(const std::vector<int64_t>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

/// Every sender's rows in segments of up to three, each put somewhere else.
void scatter(const std::vector<int64_t>& offsets, std::vector<RowSegment>& segments,
             std::vector<int64_t>& segment_offsets) {
  constexpr int64_t kRows = 3;
  std::vector<int64_t> lengths;
  segment_offsets.push_back(0);
  for (std::size_t peer = 0; peer + 1 < offsets.size(); ++peer) {
    for (int64_t row = offsets[peer]; row < offsets[peer + 1]; row += kRows) {
      lengths.push_back(std::min(kRows, offsets[peer + 1] - row));
    }
    segment_offsets.push_back(static_cast<int64_t>(lengths.size()));
  }
  segments.resize(lengths.size());
  int64_t next = 0;
  for (const int64_t index : shuffled(static_cast<int64_t>(lengths.size()))) {
    const auto i = static_cast<std::size_t>(index);
    segments[i] = {next, lengths[i]};
    next += lengths[i];
  }
}

}  // namespace

void check_all_to_all(Communicator& communicator, RowCount count, int64_t row_bytes,
                      bool scattered) {
  constexpr std::byte kUntouched{0xa5};
  const int64_t stride = row_bytes + (communicator.moves_scattered_rows() ? 5 : 0);
  const int rank = communicator.rank();
  const std::vector<int64_t> sent_offsets = offsets_of(communicator, count, true);
  const std::vector<int64_t> received_offsets = offsets_of(communicator, count, false);
  const int64_t num_sent = sent_offsets.back();
  const int64_t num_received = received_offsets.back();

  std::vector<int64_t> order;
  if (scattered) order = shuffled(num_sent);
  Buffer<std::byte> sent_bytes(num_sent * stride + 1, communicator.backend());
  const MatrixView<std::byte> sent_rows(sent_bytes.data(), num_sent, row_bytes, stride);
  for (int peer = 0; peer < communicator.size(); ++peer) {
    const auto first = sent_offsets[static_cast<std::size_t>(peer)];
    for (int64_t row = 0; row < count(rank, peer); ++row) {
      const int64_t at = scattered ? order[static_cast<std::size_t>(first + row)] : first + row;
      for (int64_t i = 0; i < row_bytes; ++i) {
        sent_rows.row(at)[i] = byte_of(rank, peer, row, i);
      }
    }
  }
  std::vector<RowSegment> segments;
  std::vector<int64_t> segment_offsets;
  if (scattered) scatter(received_offsets, segments, segment_offsets);
  Buffer<std::byte> received_bytes(num_received * stride + 1, communicator.backend());
  std::fill(received_bytes.begin(), received_bytes.end(), kUntouched);
  const MatrixView<std::byte> received_rows(received_bytes.data(), num_received, row_bytes, stride);

  const SentRows sent{sent_rows, view(order), view(sent_offsets)};
  ReceivedRows received{received_rows, view(received_offsets), {}, view(segment_offsets)};
  received.segments = {segments.data(), static_cast<int64_t>(segments.size())};
  communicator.start_all_to_all("test", sent, received);
  communicator.finish_all_to_all();
  communicator.wait("test");

  for (int peer = 0; peer < communicator.size(); ++peer) {
    std::vector<int64_t> places;
    if (scattered) {
      for (int64_t i = segment_offsets[static_cast<std::size_t>(peer)];
           i < segment_offsets[static_cast<std::size_t>(peer) + 1]; ++i) {
        const RowSegment& segment = segments[static_cast<std::size_t>(i)];
        for (int64_t row = 0; row < segment.num_rows; ++row) {
          places.push_back(segment.first_row + row);
        }
      }
    }
    for (int64_t row = 0; row < count(peer, rank); ++row) {
      const int64_t at = scattered ? places[static_cast<std::size_t>(row)]
                                   : received_offsets[static_cast<std::size_t>(peer)] + row;
      for (int64_t i = 0; i < row_bytes; ++i) {
        ASSERT_EQ(received_rows.row(at)[i], byte_of(peer, rank, row, i))
            << "rank " << rank << ", row " << row << " from " << peer << ", byte " << i;
      }
      for (int64_t i = row_bytes; i < stride && at + 1 < num_received; ++i) {
        ASSERT_EQ(received_rows.row(at)[i], kUntouched) << "behind row " << at;
      }
    }
  }
}

void check_equal_all_to_all(Communicator& communicator, int64_t rows_per_rank, int64_t row_bytes) {
  const int64_t num_rows = rows_per_rank * communicator.size();
  const int rank = communicator.rank();
  Buffer<std::byte> sent(num_rows * row_bytes + 1, communicator.backend());
  Buffer<std::byte> received(num_rows * row_bytes + 1, communicator.backend());
  const MatrixView<std::byte> sent_rows(sent.data(), num_rows, row_bytes);
  const MatrixView<std::byte> received_rows(received.data(), num_rows, row_bytes);
  const auto for_each_byte = [&](const auto& visit) {
    for (int peer = 0; peer < communicator.size(); ++peer) {
      for (int64_t row = 0; row < rows_per_rank; ++row) {
        for (int64_t i = 0; i < row_bytes; ++i) visit(peer, row, i);
      }
    }
  };
  for_each_byte([&](int peer, int64_t row, int64_t i) {
    sent_rows.row(peer * rows_per_rank + row)[i] = byte_of(rank, peer, row, i);
  });
  communicator.start_equal_all_to_all("test", sent_rows, received_rows, rows_per_rank);
  communicator.finish_all_to_all();
  communicator.wait("test");
  for_each_byte([&](int peer, int64_t row, int64_t i) {
    ASSERT_EQ(received_rows.row(peer * rows_per_rank + row)[i], byte_of(peer, rank, row, i))
        << "rank " << rank << ", row " << row << " from " << peer << ", byte " << i;
  });
}

void check_all_gather(Communicator& communicator, int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  std::vector<std::byte> mine(size);
  for (std::size_t i = 0; i < size; ++i) {
    mine[i] = byte_of(communicator.rank(), 0, 0, static_cast<int64_t>(i));
  }
  std::vector<std::byte> all(size * static_cast<std::size_t>(communicator.size()));
  communicator.all_gather("test", mine, all);
  for (int rank = 0; rank < communicator.size(); ++rank) {
    for (std::size_t i = 0; i < size; ++i) {
      ASSERT_EQ(all[static_cast<std::size_t>(rank) * size + i],
                byte_of(rank, 0, 0, static_cast<int64_t>(i)))
          << "rank " << rank << ", byte " << i;
    }
  }
}

}  // namespace switchyard::test
