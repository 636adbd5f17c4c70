// The state of Residency, for policies that change it without checks of their arguments.
#pragma once

#include <algorithm>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/residency.h"

namespace switchyard {

class Residency::State {
 public:
  State(const ResidencyConfig& residency_config, Backend backend);

  [[nodiscard]] bool is_resident(int32_t layer, int32_t expert) const {
    return mask[layer * mask_stride + expert] != 0;
  }
  [[nodiscard]] bool is_pinned(int32_t layer, int32_t expert) const {
    return test(pinned_, layer, expert);
  }
  [[nodiscard]] bool is_on_host(int32_t layer, int32_t expert) const {
    return test(on_host_, layer, expert);
  }

  /// How many more experts of a layer fit into fast memory.
  [[nodiscard]] int64_t room(int32_t layer) const {
    const auto index = static_cast<size_t>(layer);
    return std::min<int64_t>(fast_slots[index] - num_resident[index], fast_capacity - fast_used);
  }

  /// Wants room and an expert that is not resident.
  void enter(int32_t layer, int32_t expert) {
    mask[layer * mask_stride + expert] = 1;
    ++num_resident[static_cast<size_t>(layer)];
    ++fast_used;
    leave_host(layer, expert);
  }
  /// Wants a resident expert that is not pinned.
  void leave(int32_t layer, int32_t expert) {
    mask[layer * mask_stride + expert] = 0;
    --num_resident[static_cast<size_t>(layer)];
    --fast_used;
    if (host_used < host_capacity) enter_host(layer, expert);
  }
  void enter_host(int32_t layer, int32_t expert) {
    word(on_host_, layer, expert) |= bit(expert);
    ++host_used;
  }
  void leave_host(int32_t layer, int32_t expert) {
    uint64_t& bits = word(on_host_, layer, expert);
    host_used -= static_cast<int64_t>((bits & bit(expert)) != 0);
    bits &= ~bit(expert);
  }
  void set_pinned(int32_t layer, int32_t expert, bool value) {
    uint64_t& bits = word(pinned_, layer, expert);
    num_pinned[static_cast<size_t>(layer)] +=
        static_cast<int32_t>(value) - static_cast<int32_t>((bits & bit(expert)) != 0);
    bits = value ? bits | bit(expert) : bits & ~bit(expert);
  }

  const ResidencyConfig config;
  const int64_t mask_stride;    ///< bytes from layer to layer
  const int64_t words;          ///< of 64 experts, a layer
  const int64_t fast_capacity;  ///< experts
  const int64_t host_capacity;
  Buffer<uint8_t> mask;
  std::vector<int32_t> fast_slots;
  std::vector<int32_t> num_resident;
  std::vector<int32_t> num_pinned;
  int64_t fast_used = 0;  ///< experts
  int64_t host_used = 0;

 private:
  using Bits = std::vector<uint64_t>;

  static uint64_t bit(int32_t expert) { return uint64_t{1} << (expert % 64); }
  uint64_t& word(Bits& bits, int32_t layer, int32_t expert) const {
    return bits[static_cast<size_t>(layer * words + expert / 64)];
  }
  [[nodiscard]] bool test(const Bits& bits, int32_t layer, int32_t expert) const {
    return (bits[static_cast<size_t>(layer * words + expert / 64)] & bit(expert)) != 0;
  }

  Bits pinned_;
  Bits on_host_;
};

}  // namespace switchyard
