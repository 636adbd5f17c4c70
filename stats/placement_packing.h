// Items into bins of limited room so that the fullest, for its speed, is as empty as can be: copies
// of experts onto ranks, groups of experts onto nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::stats {

/// `load` of a copy of `kind`: an expert or a group.
struct PackedItem {
  double load = 0.0;
  int32_t kind = 0;
};

/// Bins that hold no kind twice. A bin's time is the load in it over its speed; what counts is the
/// longest.
class Packing {
 public:
  /// @param speeds  [num_bins], each above 0; outlives this object.
  Packing(int32_t num_kinds, int32_t capacity, std::span<const double> speeds);

  /// Puts every item, the heaviest first, where the time is shortest afterwards; equal loads by the
  /// lower kind, equal times by the lower bin.
  /// @param items  of one kind at most num_bins, in all at most num_bins * capacity; sorted here.
  /// @return whether each went where it would have gone if a bin could hold a kind twice.
  bool fill(std::vector<PackedItem>& items);

  /// Swaps items of the slowest bin against lighter ones of others as long as that helps and the
  /// longest time is above `enough`.
  void refine(double enough);

  /// No placement of these items has a shorter longest time.
  [[nodiscard]] double lower_bound() const;
  [[nodiscard]] double longest_time() const;

  [[nodiscard]] int32_t num_bins() const { return static_cast<int32_t>(sizes_.size()); }
  [[nodiscard]] int32_t capacity() const { return capacity_; }
  /// Of one bin, lightest first after refine().
  [[nodiscard]] std::span<const PackedItem> items_of(int32_t bin) const;

 private:
  struct Swap {
    double time = 0.0;  ///< of the slower of both afterwards
    int32_t other = -1;
    int32_t index = 0;  ///< in the slowest bin
    int32_t other_index = 0;
  };

  [[nodiscard]] bool holds(int32_t bin, int32_t kind) const;
  void mark(int32_t bin, int32_t kind, bool held);
  [[nodiscard]] PackedItem* items(int32_t bin);
  [[nodiscard]] double time_of(int32_t bin) const { return times_[static_cast<std::size_t>(bin)]; }
  void add_load(int32_t bin, double load);
  void put(int32_t bin, const PackedItem& item);
  void make_room(const PackedItem& item);
  bool fill_evenly_fast(std::span<const PackedItem> items);
  bool fill_by_time(std::span<const PackedItem> items);
  void sort_all();
  void find_swap(int32_t slowest, int32_t other, Swap& best) const;
  void swap_items(int32_t slowest, const Swap& swap);
  void replace_sorted(int32_t bin, int32_t index, const PackedItem& item);

  int32_t capacity_;
  std::span<const double> speeds_;
  bool equal_speeds_;
  std::size_t words_;              ///< of a bin's bit set
  std::vector<uint64_t> held_;     ///< [num_bins, words_]
  std::vector<PackedItem> items_;  ///< [num_bins, capacity]
  std::vector<int32_t> sizes_;     ///< [num_bins]
  std::vector<double> loads_;      ///< [num_bins]
  std::vector<double> times_;      ///< [num_bins] loads_ over speeds
};

}  // namespace switchyard::stats
