#include <algorithm>
#include <numeric>
#include <utility>

#include "stats/chance.h"
#include "stats/index_of.h"
#include "stats/placement_counts.h"

namespace switchyard::stats {
namespace {

constexpr uint64_t kSeed = 1;
/// Gains below this share are rounding.
constexpr double kLeastGain = 1e-12;
/// Copies that change hands at once where no single one helps.
constexpr int64_t kFewestAtOnce = 2;
constexpr int64_t kMostAtOnce = 4;

class CountSearch {
 public:
  CountSearch(const LayerProblem& problem, std::vector<int32_t> counts, int64_t num_packings)
      : problem_(problem), counts_(std::move(counts)), left_(num_packings), chance_(kSeed) {
    most_ = int64_t{problem.num_ranks()} * problem.slots_per_rank;
    copies_ = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
    time_ = pack();
  }

  std::vector<int32_t> run(double wanted) {
    std::vector<int32_t> best_counts = counts_;
    double best_time = time_;
    while (best_time_ > wanted && left_ > 0) {
      if (!improve()) {
        set(best_counts);
        shake();
        time_ = pack();
      }
      if (time_ >= best_time) continue;
      best_time = time_;
      best_counts = counts_;
    }
    return best_;
  }

 private:
  /// A copy goes from one expert to another, from or to none where that is -1.
  struct Transfer {
    int32_t from = -1;
    int32_t to = -1;
  };

  double pack() {
    --left_;
    std::vector<int32_t> slots = pack_copies(problem_, counts_, 0.0).slots;
    const double time = longest_time(problem_, slots);
    if (best_.empty() || time < best_time_) {
      best_time_ = time;
      best_ = std::move(slots);
    }
    return time;
  }

  void set(const std::vector<int32_t>& counts) {
    counts_ = counts;
    copies_ = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
  }

  [[nodiscard]] bool may(const Transfer& transfer) const {
    if (transfer.from == transfer.to) return false;
    if (transfer.from >= 0 && counts_[index_of(transfer.from)] < 2) return false;
    if (transfer.to < 0) return true;
    return counts_[index_of(transfer.to)] < problem_.num_ranks() &&
           (transfer.from >= 0 || copies_ < most_);
  }

  void apply(const Transfer& transfer) {
    if (transfer.from >= 0) --counts_[index_of(transfer.from)];
    if (transfer.to >= 0) ++counts_[index_of(transfer.to)];
    copies_ += (transfer.to >= 0 ? 1 : 0) - (transfer.from >= 0 ? 1 : 0);
  }

  /// The first transfer that helps, in an order by chance.
  bool improve() {
    std::vector<Transfer> transfers;
    for (int32_t from = -1; from < problem_.num_experts(); ++from) {
      for (int32_t to = -1; to < problem_.num_experts(); ++to) {
        if (may({from, to})) transfers.push_back({from, to});
      }
    }
    for (std::size_t i = 0; i < transfers.size() && left_ > 0; ++i) {
      const std::size_t other =
          i + index_of(chance_.below(static_cast<int64_t>(transfers.size() - i)));
      std::swap(transfers[i], transfers[other]);
      apply(transfers[i]);
      const double time = pack();
      if (time < time_ * (1.0 - kLeastGain)) {
        time_ = time;
        return true;
      }
      apply({transfers[i].to, transfers[i].from});
    }
    return false;
  }

  void shake() {
    const int64_t num_experts = problem_.num_experts();
    for (int64_t i = kFewestAtOnce + chance_.below(kMostAtOnce - kFewestAtOnce + 1); i > 0; --i) {
      const Transfer transfer{static_cast<int32_t>(chance_.below(num_experts + 1)) - 1,
                              static_cast<int32_t>(chance_.below(num_experts + 1)) - 1};
      if (may(transfer)) apply(transfer);
    }
  }

  const LayerProblem& problem_;
  std::vector<int32_t> counts_;
  int64_t copies_ = 0;
  int64_t most_ = 0;
  double time_ = 0.0;
  std::vector<int32_t> best_;
  double best_time_ = 0.0;
  int64_t left_;
  Chance chance_;
};

}  // namespace

std::vector<int32_t> search_counts(const LayerProblem& problem, std::vector<int32_t> counts,
                                   double wanted, int64_t num_packings) {
  return CountSearch(problem, std::move(counts), num_packings).run(wanted);
}

}  // namespace switchyard::stats
