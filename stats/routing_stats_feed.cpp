#include "switchyard/routing_stats_feed.h"

#include <array>
#include <vector>

#include "stats/refuse.h"
#include "switchyard/result_staging.h"
#include "switchyard/router_losses.h"

namespace switchyard {

using stats::check_range;
using stats::refuse;

namespace {

constexpr int32_t kMaxSlots = 65536;

template <typename T>
int64_t bytes_of(VectorView<const T> view) {
  return view.size * static_cast<int64_t>(sizeof(T));
}

}  // namespace

class RoutingStatsFeed::Ring {
 public:
  Ring(RoutingStats& stats, Backend backend, int32_t num_slots)
      : stats_(stats), routings_(static_cast<std::size_t>(num_slots)) {
    const int32_t num_experts = stats.config().num_experts;
    const auto slot_bytes =
        (num_experts + router_loss_sums_size(num_experts)) * static_cast<int64_t>(sizeof(int64_t)) +
        static_cast<int64_t>(sizeof(PermutationTotals));
    staging_ = make_result_staging(num_slots, slot_bytes, backend);
  }

  bool record(const FedRouting& routing, StreamView stream) {
    check(routing);
    collect(false);
    if (size() == capacity()) {
      ++num_skipped;
      return false;
    }
    const std::array<ResultStaging::Part, 3> parts = {
        {{"totals", routing.totals, routing.totals == nullptr ? 0 : kTotalsBytes},
         {"tokens_per_expert", routing.tokens_per_expert.data, bytes_of(routing.tokens_per_expert)},
         {"loss_sums", routing.loss_sums.data, bytes_of(routing.loss_sums)}}};
    staging_->copy(begun_ % capacity(), parts, stream);
    slot(begun_) = routing;
    ++begun_;
    return true;
  }

  int64_t collect(bool waits) {
    int64_t count = 0;
    for (; ended_ < begun_; ++ended_, ++count) {
      const int64_t place = ended_ % capacity();
      if (waits) {
        staging_->wait_for(place);
      } else if (!staging_->has_arrived(place)) {
        break;
      }
      record_arrived(slot(ended_), staging_->data(place));
    }
    return count;
  }

  [[nodiscard]] int64_t size() const { return begun_ - ended_; }

  int64_t num_skipped = 0;
  int64_t num_refused = 0;

 private:
  static constexpr auto kTotalsBytes = static_cast<int64_t>(sizeof(PermutationTotals));
  static_assert(kTotalsBytes % sizeof(int64_t) == 0);

  [[nodiscard]] int64_t capacity() const { return static_cast<int64_t>(routings_.size()); }
  FedRouting& slot(int64_t number) {
    return routings_[static_cast<std::size_t>(number % capacity())];
  }

  void check(const FedRouting& routing) const {
    const RoutingStatsConfig& config = stats_.config();
    check_range("layer", routing.layer, 0, config.num_layers - 1);
    check_range("num_tokens", routing.num_tokens, 0, RoutingStats::kMaxRecorded);
    if (routing.tokens_per_expert.size != config.num_experts) {
      refuse("tokens_per_expert has ", routing.tokens_per_expert.size, " elements, must have ",
             config.num_experts);
    }
    if (routing.tokens_per_expert.data == nullptr) refuse("tokens_per_expert is a null pointer");
    if (!routing.loss_sums.empty()) {
      check_range("loss_sums size", routing.loss_sums.size, router_loss_sums_size(1),
                  router_loss_sums_size(config.num_experts));
      if (routing.loss_sums.data == nullptr) refuse("loss_sums is a null pointer");
    }
    if (routing.expert_capacity != INT64_MAX) {
      check_range("expert_capacity", routing.expert_capacity, 0, RoutingStats::kMaxRecorded);
    }
    if (routing.latency_ns) {
      check_range("latency_ns", *routing.latency_ns, 0, RoutingStats::kMaxRecorded);
    }
  }

  void record_arrived(const FedRouting& routing, const std::byte* data) {
    RoutingRecord record{.layer = routing.layer,
                         .num_tokens = routing.num_tokens,
                         .expert_capacity = routing.expert_capacity,
                         .latency_ns = routing.latency_ns};
    if (routing.totals != nullptr) {
      const auto* const totals = reinterpret_cast<const PermutationTotals*>(data);
      record.dropped_assignments = totals->dropped_assignments;
      record.fully_dropped_tokens = totals->fully_dropped_tokens;
      data += kTotalsBytes;
    }
    const auto* const numbers = reinterpret_cast<const int64_t*>(data);
    record.tokens_per_expert = {numbers, routing.tokens_per_expert.size};
    try {
      if (!routing.loss_sums.empty()) {
        const RouterLossValues losses =
            router_loss_values({numbers + routing.tokens_per_expert.size, routing.loss_sums.size},
                               record.tokens_per_expert);
        record.balance_loss = losses.balance_loss;
        record.z_loss = losses.z_loss;
      }
      stats_.record(record);
    } catch (const InvalidArgument&) {
      // Whoever made the numbers is long past; to throw at this call would blame another batch.
      ++num_refused;
    }
  }

  RoutingStats& stats_;
  std::vector<FedRouting> routings_;
  int64_t begun_ = 0;
  int64_t ended_ = 0;
  std::unique_ptr<ResultStaging> staging_;
};

RoutingStatsFeed::RoutingStatsFeed(RoutingStats& stats, Backend backend, int32_t num_slots) {
  check_range("num_slots", num_slots, 1, kMaxSlots);
  ring_ = std::make_unique<Ring>(stats, backend, num_slots);
}

RoutingStatsFeed::~RoutingStatsFeed() = default;
RoutingStatsFeed::RoutingStatsFeed(RoutingStatsFeed&&) noexcept = default;
RoutingStatsFeed& RoutingStatsFeed::operator=(RoutingStatsFeed&&) noexcept = default;

bool RoutingStatsFeed::record(const FedRouting& routing, StreamView stream) {
  return ring_->record(routing, stream);
}

int64_t RoutingStatsFeed::collect() { return ring_->collect(false); }

void RoutingStatsFeed::finish() { ring_->collect(true); }

int64_t RoutingStatsFeed::num_skipped() const { return ring_->num_skipped; }

int64_t RoutingStatsFeed::num_refused() const { return ring_->num_refused; }

int64_t RoutingStatsFeed::num_under_way() const { return ring_->size(); }

}  // namespace switchyard
