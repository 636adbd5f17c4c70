#include "stats/placement_counts.h"

#include <algorithm>

#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

std::vector<int32_t> slots_of(const Packing& packing) {
  std::vector<int32_t> slots(index_of(packing.num_bins()) * index_of(packing.capacity()), -1);
  for (int32_t bin = 0; bin < packing.num_bins(); ++bin) {
    std::size_t slot = index_of(bin) * index_of(packing.capacity());
    for (const PackedItem& item : packing.items_of(bin)) slots[slot++] = item.kind;
  }
  return slots;
}

}  // namespace

std::vector<int32_t> replica_counts(std::span<const double> loads, int64_t num_slots,
                                    int32_t most_copies) {
  std::vector<int32_t> counts(loads.size(), 1);
  struct Candidate {
    double load;
    int32_t copies;
    int32_t expert;
  };
  const auto after = [](const Candidate& a, const Candidate& b) {
    if (a.load != b.load) return a.load < b.load;
    if (a.load == 0.0 && a.copies != b.copies) return a.copies > b.copies;
    return a.expert > b.expert;
  };
  std::vector<Candidate> heap;
  if (most_copies > 1) {
    for (std::size_t i = 0; i < loads.size(); ++i) {
      heap.push_back({loads[i], 1, static_cast<int32_t>(i)});
    }
  }
  std::make_heap(heap.begin(), heap.end(), after);
  auto left = num_slots - static_cast<int64_t>(loads.size());
  for (; left > 0 && !heap.empty(); --left) {
    std::pop_heap(heap.begin(), heap.end(), after);
    Candidate& next = heap.back();
    const std::size_t expert = index_of(next.expert);
    next.copies = ++counts[expert];
    next.load = loads[expert] / next.copies;
    if (next.copies == most_copies) {
      heap.pop_back();
    } else {
      std::push_heap(heap.begin(), heap.end(), after);
    }
  }
  return counts;
}

std::vector<PackedItem> copies_of(std::span<const double> loads, std::span<const int32_t> counts) {
  std::vector<PackedItem> experts;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    experts.push_back({loads[expert] / counts[expert], static_cast<int32_t>(expert)});
  }
  std::sort(experts.begin(), experts.end(), [](const PackedItem& a, const PackedItem& b) {
    return a.load != b.load ? a.load > b.load : a.kind < b.kind;
  });
  std::vector<PackedItem> items;
  for (const PackedItem& copy : experts) {
    items.insert(items.end(), index_of(counts[index_of(copy.kind)]), copy);
  }
  return items;
}

PackedCopies pack_copies(const LayerProblem& problem, std::span<const int32_t> counts,
                         double tolerance) {
  std::vector<PackedItem> items = copies_of(problem.loads, counts);
  Packing packing(problem.num_experts(), problem.slots_per_rank, problem.speeds);
  PackedCopies result;
  result.as_wished = packing.fill(items);
  packing.refine(packing.lower_bound() * (1.0 + tolerance));
  result.slots = slots_of(packing);
  return result;
}

}  // namespace switchyard::stats
