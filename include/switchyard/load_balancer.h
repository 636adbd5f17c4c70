// Shards of a model that take different times: who should have how many of its layers.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

/// Latencies of one shard, which runs consecutive layers, over its last forwards.
class ShardMetrics {
 public:
  /// @param window  forwards that count, 1 or more; older ones age out.
  /// @throws InvalidArgument  for a negative number of layers or a window below 1.
  explicit ShardMetrics(int64_t num_layers = 0, int64_t window = kWindow);

  /// Of one forward through all of the shard's layers.
  /// @throws InvalidArgument  unless finite and 0 or more; nothing has changed then.
  void record(double latency_us);

  [[nodiscard]] int64_t num_layers() const { return num_layers_; }
  [[nodiscard]] int64_t num_forwards() const { return num_forwards_; }  ///< ever
  [[nodiscard]] int64_t num_samples() const { return static_cast<int64_t>(samples_.size()); }
  /// Of the window; 0 without samples, but for min, which is infinite then.
  [[nodiscard]] double total_us() const;
  [[nodiscard]] double min_us() const;
  [[nodiscard]] double max_us() const;
  [[nodiscard]] double last_us() const;
  [[nodiscard]] double mean_us() const;
  /// mean / num_layers; 0 without samples or layers.
  [[nodiscard]] double mean_us_per_layer() const;

  static constexpr int64_t kWindow = 1000;

 private:
  int64_t num_layers_;
  int64_t window_;
  int64_t num_forwards_ = 0;
  std::deque<double> samples_;
};

/// What a split of layers should be good at.
enum class BalanceObjective : uint8_t {
  kThroughput,  ///< shards work on different batches at once: the slowest shard counts
  kLatency,     ///< a batch goes through one shard after another: the sum counts
};

struct LoadBalancerConfig {
  int64_t min_samples = 100;  ///< of every shard in its window, before anything is said; 0 or more
  double imbalance_threshold = 2.0;  ///< slowest / fastest shard's time a layer; 1 or more
  std::chrono::nanoseconds evaluation_interval = std::chrono::seconds(60);  ///< 0 or more
  int64_t window = ShardMetrics::kWindow;  ///< forwards that count of each shard; 1 or more
  int64_t min_layers_per_shard = 1;        ///< 0 lets a shard go idle
  BalanceObjective objective = BalanceObjective::kThroughput;
  /// What evaluate() reads the time from.
  std::function<std::chrono::steady_clock::time_point()> clock = std::chrono::steady_clock::now;
};

/// @throws InvalidArgument  naming the field, its value and the limit; for a NaN too.
void validate(const LoadBalancerConfig& config);

/// What evaluate() found.
enum class BalanceStatus : uint8_t {
  kTooSoon,           ///< the interval since the last answer has not passed: nothing was looked at
  kInsufficientData,  ///< a shard has fewer samples than asked for
  kBalanced,          ///< as good as it can be, or within the threshold
  kRebalance,         ///< another split of the layers is better by its own estimate
};

/// Layers of each shard, in the order in which shards were added.
struct BalanceDecision {
  BalanceStatus status = BalanceStatus::kBalanced;
  std::string reason;                       ///< one line for people
  std::vector<std::string> shards{};        ///< names
  std::vector<int64_t> current_layers{};    ///< [shards]
  std::vector<int64_t> suggested_layers{};  ///< [shards] with kRebalance, else empty
  double current_us = 0.0;         ///< the objective now: the slowest shard's time, or the sum
  double suggested_us = 0.0;       ///< and with the suggestion; the same without one
  double estimated_speedup = 1.0;  ///< current_us / suggested_us, above 1 with kRebalance
};

/// A shard's time is taken to be in proportion to its layers.
struct LayerSplit {
  std::vector<int64_t> layers;  ///< [shards]
  double cost = 0.0;            ///< bottleneck or sum, in the unit of the times
};

/// The integer split of `num_layers` with the smallest cost.
///
/// For throughput the smallest bottleneck that any split has, found exactly; of such splits the one
/// that puts each layer where the bottleneck of the layers before it stays smallest, equal ones on
/// the earlier shard. For latency every layer beyond the minimum goes to the fastest shard, of
/// equal ones the first.
///
/// @param us_per_layer  [shards] finite and above 0.
/// @throws InvalidArgument  for times that are refused, or fewer layers than
///                          shards * min_layers_per_shard.
LayerSplit split_layers(std::span<const double> us_per_layer, int64_t num_layers,
                        int64_t min_layers_per_shard,
                        BalanceObjective objective = BalanceObjective::kThroughput);

/// Watches shards and suggests another split of their layers where that helps. One thread at a
/// time.
class LoadBalancer {
 public:
  /// @throws InvalidArgument  when `config` is refused.
  explicit LoadBalancer(LoadBalancerConfig config = {});

  [[nodiscard]] const LoadBalancerConfig& config() const { return config_; }

  /// @throws InvalidArgument  for a name that is there already, or fewer layers than 0.
  void add_shard(std::string name, int64_t num_layers);

  /// @throws InvalidArgument  for an unknown shard, or a latency that is not finite and 0 or more.
  void record(std::string_view shard, double latency_us);

  /// @throws InvalidArgument  for an unknown shard.
  [[nodiscard]] const ShardMetrics& metrics(std::string_view shard) const;

  /// Says whether the layers should be split otherwise. The first call always looks, later ones
  /// once the interval has passed since the last one that did.
  ///
  /// A shard without layers or without a time above 0 says nothing of its speed: then the answer
  /// is kBalanced.
  [[nodiscard]] BalanceDecision evaluate();

  /// Shards with these layers from now on, without samples: the old ones say little of them.
  /// @param num_layers  [shards] in the order in which they were added, 0 or more; with as many
  ///                    layers in all as before.
  /// @throws InvalidArgument  otherwise; nothing has changed then.
  void apply(std::span<const int64_t> num_layers);

  /// Forgets all samples and when evaluate() last looked; shards stay.
  void reset();

 private:
  struct Shard {
    std::string name;
    ShardMetrics metrics;
  };

  [[nodiscard]] const Shard& find(std::string_view name) const;
  [[nodiscard]] BalanceDecision compare(BalanceDecision decision) const;

  LoadBalancerConfig config_;
  std::vector<Shard> shards_;
  bool has_evaluated_ = false;
  std::chrono::steady_clock::time_point last_evaluation_{};
};

}  // namespace switchyard
