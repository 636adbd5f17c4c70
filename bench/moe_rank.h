// One rank of a Mixture-of-Experts layer: its memory, what it times and what it checks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/moe_choices.h"
#include "bench/perf_options.h"
#include "bench/rank_memory.h"
#include "switchyard/exchange_cost.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/traffic.h"

namespace switchyard::bench {

/// What is measured.
struct MoeOptions : PerfOptions {
  ChoiceOptions choices;
  std::vector<int64_t> tokens{128, 1024, 4096};
  int64_t hidden = 4096;
  std::string element = "bf16";
  int32_t block_rows = 1;
  bool deduplicate = false;
  bool private_rows = false;
  std::vector<ExchangeTiming> links{};  ///< to predict from; empty: measured beside
};

/// What is done in turn, so that a machine's moods hit all alike.
enum Work : std::size_t { kPlan, kDispatch, kCombine, kRaw, kCopy, kNumWorks };

/// Of one size, the same on every rank.
struct MoeResult {
  int64_t tokens = 0;  ///< of a rank
  int64_t rows = 0;    ///< of all ranks: one an assignment
  int64_t bytes = 0;   ///< of those rows
  std::array<double, kNumWorks> seconds{};
  TrafficSummary traffic;
  double predicted_dispatch = 0.0;
  double predicted_combine = 0.0;
  int64_t trips = -1;  ///< rows that travel in a dispatch, where deduplicated
  int64_t wrong = -1;

  [[nodiscard]] double gbps(Work work) const {
    return static_cast<double>(bytes) / 1e9 / seconds[work];
  }
  /// Of a dispatch or combine, how its bandwidth compares.
  [[nodiscard]] double share(Work work, Work other) const { return seconds[other] / seconds[work]; }
};

/// @throws InvalidArgument  for a name that is none.
DataType element_type(const std::string& name);

/// Takes part in a group. All ranks make the same calls.
class MoeRank {
 public:
  /// `options` and `choices` outlive the rank.
  MoeRank(Communicator& communicator, const MoeOptions& options, const MoeChoices& choices);

  MoeResult measure(int64_t num_tokens);

 private:
  void prepare(int64_t num_tokens);
  void replace(RankMemory& memory, RankMemory fresh);
  void make_plan();
  void dispatch();
  void combine();
  /// The transport's own: contiguous rows, as many from and to every rank as a dispatch has.
  void raw();
  void copy();
  /// Until a GPU is done.
  void wait() { communicator_.wait("moe_perf", stream_.view()); }
  /// Seconds from a common start to this rank's end.
  double time(Work work);
  /// Of each iteration, the time of the rank that took longest.
  std::vector<double> slowest(const std::vector<double>& mine);
  int64_t sum(double mine);
  int64_t total_rows();
  [[nodiscard]] RowWay row_way() const;
  /// Predicts times from all-to-alls of equal counts over this transport, or from those given;
  /// where processes use each other's memory, from the copies. Nothing where they are too unsteady
  /// to tell.
  void predict(const TrafficMatrix& traffic, MoeResult& result);
  /// Of as much as a rank sends of this batch, and of twice as much.
  std::vector<ExchangeTiming> measure_links(int64_t bytes_per_rank);
  /// Experts answer what they get, so that a token's answer is known without any exchange.
  int64_t count_wrong();

  Communicator& communicator_;
  const MoeOptions& options_;
  const MoeChoices& choices_;
  DataType dtype_;
  int64_t row_bytes_;
  Backend backend_;
  RankStream stream_;
  ExpertExchange exchange_;
  AllToAllPlan plan_;
  int64_t num_tokens_ = 0;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
  RankMemory rank_ids_;
  RankMemory rank_weights_;
  RankMemory tokens_;
  RankMemory combined_;
  RankMemory private_rows_;
  std::span<std::byte> expert_rows_;
  RankMemory plan_workspace_;
  RankMemory workspace_;
  RankMemory raw_from_;
  RankMemory raw_to_;
  RankMemory copy_from_;
  RankMemory copy_to_;
  RankMemory link_from_;
  RankMemory link_to_;
  std::vector<RankMemory> retired_;
  std::function<void()> raw_call_;
};

}  // namespace switchyard::bench
