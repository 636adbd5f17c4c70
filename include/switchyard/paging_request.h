// What the caller moves between memories, so that they become what a decision took them to be.
#pragma once

#include <cstdint>

namespace switchyard {

enum class PagingDirection : uint8_t {
  kIn,   ///< into fast memory
  kOut,  ///< out of it
};

/// The higher value is served first.
enum class PagingPriority : uint8_t {
  kPrefetch = 0,  ///< may be needed soon
  kNormal = 1,    ///< asked for by the caller
  kUrgent = 2,    ///< a token waits for it
};

/// One expert of one layer to move. A page-out stands right before the page-in that takes its room
/// and has its priority.
struct PagingRequest {
  int32_t layer = 0;
  int32_t expert = 0;
  PagingDirection direction = PagingDirection::kIn;
  PagingPriority priority = PagingPriority::kNormal;

  bool operator==(const PagingRequest&) const = default;
};

/// What a miss and an upload cost, in microseconds.
struct PagingCosts {
  double miss_us = 0.0;    ///< a token waits for an expert that is not in fast memory
  double upload_us = 0.0;  ///< the link is kept busy by one that was brought in for nothing
};

/// How probable an expert's use must be for a prefetch of it to pay.
///
/// A prefetch that is used saves a miss, one that is not wastes an upload, and the expert that
/// makes room is missed with its own probability: p * miss > (1 - p) * upload + victim * miss, so
///
///   p > (upload + victim * miss) / (upload + miss)
///
/// 0 where both costs are 0.
///
/// @param costs  finite, 0 or more (validate()).
/// @param victim_probability  of the expert that leaves, in [0, 1]; 0 where there is room.
[[nodiscard]] constexpr double break_even_precision(const PagingCosts& costs,
                                                    double victim_probability = 0.0) {
  const double sum = costs.upload_us + costs.miss_us;
  return sum > 0.0 ? (costs.upload_us + victim_probability * costs.miss_us) / sum : 0.0;
}

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const PagingCosts& costs);

}  // namespace switchyard
