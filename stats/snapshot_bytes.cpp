// Snapshots as words of 64 bits, little endian: what to_bytes() writes and from_bytes() reads goes
// through one list of fields.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "stats/refuse.h"
#include "switchyard/router.h"
#include "switchyard/routing_snapshot.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMagic = 0x3153544154535953;  // "SYSTATS1"

class Writer {
 public:
  void number(uint64_t value) { words_.push_back(value); }
  void number(int64_t value) { words_.push_back(static_cast<uint64_t>(value)); }
  void number(int32_t value) { number(int64_t{value}); }
  void number(double value) { words_.push_back(std::bit_cast<uint64_t>(value)); }
  template <typename T>
  void list(const std::vector<T>& values) {
    number(values.size());
    for (const T& value : values) number(value);
  }
  void latency(const LatencySummary& summary) {
    number(summary.sum_ns());
    number(summary.count() == 0 ? 0 : static_cast<int64_t>(summary.min_ns()));
    number(static_cast<int64_t>(summary.max_ns()));
    // Most buckets are empty.
    const std::vector<int64_t>& histogram = summary.histogram();
    number(static_cast<uint64_t>(std::count_if(histogram.begin(), histogram.end(),
                                               [](int64_t count) { return count != 0; })));
    for (std::size_t bucket = 0; bucket < histogram.size(); ++bucket) {
      if (histogram[bucket] == 0) continue;
      number(bucket);
      number(histogram[bucket]);
    }
    list(summary.recent_ns());
  }
  void layers(const std::vector<LayerStats>& values) { number(values.size()); }

  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> bytes(words_.size() * sizeof(uint64_t));
    std::memcpy(bytes.data(), words_.data(), bytes.size());
    return bytes;
  }

 private:
  std::vector<uint64_t> words_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  void number(uint64_t& value) {
    if (bytes_.size() < sizeof(value)) stats::refuse("bytes of a snapshot are cut off");
    std::memcpy(&value, bytes_.data(), sizeof(value));
    bytes_ = bytes_.subspan(sizeof(value));
  }
  void number(int64_t& value) {
    uint64_t bits = 0;
    number(bits);
    value = static_cast<int64_t>(bits);
    if (value < 0) stats::refuse("bytes of a snapshot hold ", value, ", must hold 0 or more");
  }
  void number(int32_t& value) {
    int64_t wide = 0;
    number(wide);
    constexpr int64_t kMax = kMaxExperts + kMaxSharedExperts;
    if (wide > kMax) {
      stats::refuse("bytes of a snapshot hold ", wide, " experts, must hold at most ", kMax);
    }
    value = static_cast<int32_t>(wide);
  }
  void number(double& value) {
    uint64_t bits = 0;
    number(bits);
    value = std::bit_cast<double>(bits);
    if (!(value >= 0.0) || std::isinf(value)) {
      stats::refuse("bytes of a snapshot hold ", value, ", must hold finite numbers of 0 or more");
    }
  }
  template <typename T>
  void list(std::vector<T>& values) {
    values.resize(size());
    for (T& value : values) number(value);
  }
  void latency(LatencySummary& summary) {
    int64_t sum_ns = 0;
    int64_t min_ns = 0;
    int64_t max_ns = 0;
    number(sum_ns);
    number(min_ns);
    number(max_ns);
    std::vector<int64_t> histogram(LatencyBuckets::kCount);
    for (std::size_t left = size(); left > 0; --left) {
      uint64_t bucket = 0;
      number(bucket);
      if (bucket >= histogram.size()) {
        stats::refuse("bytes of a snapshot name bucket ", bucket, ", must be below ",
                      histogram.size());
      }
      number(histogram[bucket]);
    }
    std::vector<int64_t> recent;
    list(recent);
    summary = LatencySummary::from(std::move(histogram), sum_ns, min_ns, max_ns, std::move(recent));
  }
  void layers(std::vector<LayerStats>& values) { values.resize(size()); }

  [[nodiscard]] bool at_end() const { return bytes_.empty(); }

 private:
  /// Of a list, whose elements take a word or more each.
  std::size_t size() {
    uint64_t count = 0;
    number(count);
    if (count > bytes_.size() / sizeof(uint64_t)) stats::refuse("bytes of a snapshot are cut off");
    return count;
  }

  std::span<const std::byte> bytes_;
};

template <typename Way, typename Sum>
void exact_sum(Way& way, Sum& sum) {
  way.number(sum.whole);
  way.number(sum.fraction);
}

template <typename Way, typename Sums>
void layer_sums(Way& way, Sums& sums) {
  way.number(sums.routings);
  way.number(sums.tokens);
  way.number(sums.assignments);
  way.number(sums.dropped_assignments);
  way.number(sums.fully_dropped_tokens);
  way.number(sums.balance_losses);
  way.number(sums.z_losses);
  exact_sum(way, sums.balance_loss_sum);
  exact_sum(way, sums.z_loss_sum);
  way.number(sums.limited_routings);
  way.number(sums.capacity_used);
  way.number(sums.capacity_offered);
  way.number(sums.capacity_exceeded);
  exact_sum(way, sums.capacity_use_sum);
  way.number(sums.peak_capacity_use);
  way.number(sums.peak_expert_capacity);
  way.number(sums.hits);
  way.number(sums.misses);
  way.number(sums.mass_tokens);
  exact_sum(way, sums.sacrificed_mass_sum);
  way.number(sums.peak_sacrificed_mass);
  for (auto& count : sums.mass_histogram) way.number(count);
}

template <typename Way, typename Snapshot>
void whole_snapshot(Way& way, Snapshot& snapshot) {
  way.number(snapshot.num_experts);
  way.number(snapshot.duration_ns);
  way.layers(snapshot.layers);
  for (auto& layer : snapshot.layers) {
    layer_sums(way, layer.sums);
    way.list(layer.tokens_per_expert);
    way.list(layer.load_variances);
  }
  way.latency(snapshot.routing_latency);
  way.latency(snapshot.plan_latency);
  way.latency(snapshot.exchange_latency);
  way.number(snapshot.timed_tokens);
  way.number(snapshot.timed_routings);
  way.number(snapshot.timed_ns);
  way.number(snapshot.dispatch_bytes);
  way.number(snapshot.rebalances);
  way.number(snapshot.moved_slots);
}

}  // namespace

std::vector<std::byte> RoutingSnapshot::to_bytes() const {
  Writer writer;
  writer.number(kMagic);
  whole_snapshot(writer, *this);
  return writer.bytes();
}

RoutingSnapshot RoutingSnapshot::from_bytes(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  uint64_t magic = 0;
  reader.number(magic);
  if (magic != kMagic) stats::refuse("bytes are not those of a snapshot");
  RoutingSnapshot snapshot;
  whole_snapshot(reader, snapshot);
  if (!reader.at_end()) stats::refuse("bytes go on behind their snapshot");
  for (const LayerStats& layer : snapshot.layers) {
    if (layer.tokens_per_expert.size() != static_cast<std::size_t>(snapshot.num_experts)) {
      stats::refuse("bytes of a snapshot hold ", layer.tokens_per_expert.size(),
                    " counts in a layer of ", snapshot.num_experts, " experts");
    }
  }
  return snapshot;
}

}  // namespace switchyard
