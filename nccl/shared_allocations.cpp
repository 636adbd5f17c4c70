#include "nccl/shared_allocations.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <string>

namespace switchyard::nccl {
namespace {

/// What a rank tells of its segment.
struct Offer {
  int64_t bytes = 0;  ///< 0: there is none
  /// At the segment's beginning: another host may have one of the same name.
  uint64_t mark = 0;
  std::array<char, 64> name{};
};

std::string new_name() {
  static std::atomic<int> count = 0;
  return "/switchyard-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

uint64_t new_mark() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random();
}

bool has_mark(const SharedSegment& segment, uint64_t mark) {
  return !segment.empty() && std::memcmp(segment.data(), &mark, sizeof(mark)) == 0;
}

/// A name that is gone when this is.
class Name {
 public:
  explicit Name(std::string text) : text_(std::move(text)) {}
  Name(const Name&) = delete;
  Name& operator=(const Name&) = delete;
  ~Name() { SharedSegment::remove_name(text_); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::span<std::byte> SharedAllocations::allocate(int rank, int size, int64_t bytes,
                                                 const Gather& gather) {
  const auto own = static_cast<std::size_t>(rank);
  Allocation made{rank, std::vector<SharedSegment>(static_cast<std::size_t>(size))};
  Offer offer{.bytes = std::max(bytes, static_cast<int64_t>(sizeof(uint64_t))),
              .mark = new_mark(),
              .name = {}};
  const Name name(new_name());
  std::copy_n(name.text().begin(), std::min(name.text().size(), offer.name.size() - 1),
              offer.name.begin());
  made.segments[own] = SharedSegment::create(name.text(), offer.bytes);
  if (made.segments[own].empty()) {
    offer.bytes = 0;
  } else {
    std::memcpy(made.segments[own].data(), &offer.mark, sizeof(offer.mark));
  }
  std::vector<Offer> offers(made.segments.size());
  gather(std::as_bytes(std::span(&offer, 1)), std::as_writable_bytes(std::span(offers)));
  std::byte is_mapped{1};
  for (std::size_t peer = 0; peer < offers.size(); ++peer) {
    if (peer != own && offers[peer].bytes > 0) {
      made.segments[peer] = SharedSegment::open(offers[peer].name.data(), offers[peer].bytes);
    }
    if (!has_mark(made.segments[peer], offers[peer].mark)) is_mapped = std::byte{0};
  }
  std::vector<std::byte> all(offers.size());
  gather(std::span(&is_mapped, 1), all);
  if (std::find(all.begin(), all.end(), std::byte{0}) != all.end()) return {};
  std::byte* const memory = made.segments[own].data();
  std::memset(memory, 0, sizeof(offer.mark));
  allocations_.push_back(std::move(made));
  return {memory, static_cast<std::size_t>(bytes)};
}

SharedPlace SharedAllocations::find(std::span<const std::byte> memory) const {
  for (std::size_t i = 0; i < allocations_.size(); ++i) {
    const Allocation& allocation = allocations_[i];
    const SharedSegment& own = allocation.segments[static_cast<std::size_t>(allocation.rank)];
    if (memory.data() < own.data() || memory.data() >= own.data() + own.size()) continue;
    const int64_t offset = memory.data() - own.data();
    if (static_cast<int64_t>(memory.size()) > own.size() - offset) continue;
    return {static_cast<int64_t>(i), offset};
  }
  return {};
}

std::byte* SharedAllocations::address(int rank, const SharedPlace& place) const {
  if (place.allocation < 0) return nullptr;
  const Allocation& allocation = allocations_[static_cast<std::size_t>(place.allocation)];
  return allocation.segments[static_cast<std::size_t>(rank)].data() + place.offset;
}

}  // namespace switchyard::nccl
