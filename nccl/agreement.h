// Ranks compare what they were called with, before anything else travels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "switchyard/communicator.h"

namespace switchyard::nccl {

/// A number that every rank must have alike, and its name in errors.
struct AgreedNumber {
  const char* name;
  int64_t value;
};

/// What one rank tells the others.
struct Statement {
  static constexpr std::size_t kMaxNumbers = 16;

  std::array<int64_t, kMaxNumbers> numbers{};
  /// Why the rank refuses, and it takes the others with it; "" where it does not.
  std::array<char, 384> refusal{};

  void refuse(const std::string& why);
};

/// Gathers a statement and `extra` bytes of every rank, in one message each.
class Agreement {
 public:
  Agreement(Communicator& communicator, std::size_t extra_bytes);

  /// This rank's own extra bytes, to be filled before make().
  [[nodiscard]] std::span<std::byte> extra() { return std::span(mine_).subspan(sizeof(Statement)); }
  /// @param numbers  to be the same everywhere; the names are not sent.
  /// @param told     further numbers, which may differ; up to 16 of both.
  /// @param refusal  why this rank refuses; "" where it does not.
  /// @throws InvalidArgument  the same on every rank, when one refuses or numbers differ.
  void make(const char* phase, std::initializer_list<AgreedNumber> numbers,
            std::initializer_list<int64_t> told, const std::string& refusal);
  /// What `rank` told, after make().
  [[nodiscard]] int64_t told(int rank, std::size_t index) const;
  [[nodiscard]] std::span<const std::byte> extra_of(int rank) const;

 private:
  [[nodiscard]] const std::byte* statement_of(int rank) const;
  [[nodiscard]] int64_t number(int rank, std::size_t index) const;

  Communicator& communicator_;
  std::vector<std::byte> mine_;
  std::vector<std::byte> all_;
  std::size_t num_agreed_ = 0;
};

}  // namespace switchyard::nccl
