// What lies in the memory of a staging turn.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "nccl/staging.h"

namespace switchyard::nccl {

/// At the beginning of every turn.
struct TurnHeader {
  int64_t num_tokens = 0;  ///< of a dispatch: shown in this turn
  int64_t has_more = 0;    ///< another chunk follows
};

inline int64_t aligned(int64_t bytes) {
  return (bytes + Staging::kAlignment - 1) / Staging::kAlignment * Staging::kAlignment;
}

/// Behind the header a dispatch has where each slot's tokens end in the list of them, [num_slots],
/// and the list: places in the chunk's table of [tokens, top_k] assignments. A combine has the
/// number of answers that this rank asks of each slot.
template <typename Byte>
auto* numbers(Byte* turn) {
  using Number = std::conditional_t<std::is_const_v<Byte>, const int32_t, int32_t>;
  return reinterpret_cast<Number*>(turn + sizeof(TurnHeader));
}

inline TurnHeader header_of(const std::byte* turn) {
  TurnHeader header;
  std::memcpy(&header, turn, sizeof(header));
  return header;
}

inline void write_header(std::byte* turn, const TurnHeader& header) {
  std::memcpy(turn, &header, sizeof(header));
}

inline int64_t dispatch_head_bytes(int64_t num_slots, int64_t num_assignments) {
  return aligned(static_cast<int64_t>(sizeof(TurnHeader)) +
                 (num_slots + num_assignments) * static_cast<int64_t>(sizeof(int32_t)));
}

inline int64_t combine_head_bytes(int64_t num_slots) { return dispatch_head_bytes(num_slots, 0); }

}  // namespace switchyard::nccl
