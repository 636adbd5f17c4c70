// Cells that threads record into without waiting for one another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

#include "stats/load_spread.h"
#include "stats/wrapping_sum.h"
#include "switchyard/exact_sum.h"

namespace switchyard::stats {

/// How to change a cell that nobody else touches meanwhile.
struct ExclusiveAccess {
  static void add(int64_t& sum, int64_t term) { fetch_add(sum, term); }
  static void add(ExactSum& sum, const ExactSum& term) { sum.add(term); }
  template <typename T>
  static void raise(T& maximum, T value) {
    if (value > maximum) maximum = value;
  }
  template <typename T>
  static void lower(T& minimum, T value) {
    if (value < minimum) minimum = value;
  }
  static int64_t fetch_add(int64_t& sum, int64_t term) {
    const int64_t before = sum;
    add_wrapping(sum, term);
    return before;
  }
  static void add_all(int64_t* sums, VectorView<const int64_t> terms) { add_counts(sums, terms); }
  template <typename T>
  static void store(T& place, T value) {
    place = value;
  }
};

/// How to change one that others add to at the same time. Nobody reads it meanwhile, so that each
/// number is by itself.
struct SharedAccess {
  static void add(int64_t& sum, int64_t term) { fetch_add(sum, term); }
  static void add(ExactSum& sum, const ExactSum& term) {
    const uint64_t before =
        std::atomic_ref(sum.fraction).fetch_add(term.fraction, std::memory_order_relaxed);
    const uint64_t carry = before + term.fraction < before ? 1 : 0;
    std::atomic_ref(sum.whole).fetch_add(term.whole + carry, std::memory_order_relaxed);
  }
  template <typename T>
  static void raise(T& maximum, T value) {
    const std::atomic_ref shared(maximum);
    T before = shared.load(std::memory_order_relaxed);
    while (value > before &&
           !shared.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
  }
  template <typename T>
  static void lower(T& minimum, T value) {
    const std::atomic_ref shared(minimum);
    T before = shared.load(std::memory_order_relaxed);
    while (value < before &&
           !shared.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
  }
  static int64_t fetch_add(int64_t& sum, int64_t term) {
    return std::atomic_ref(sum).fetch_add(term, std::memory_order_relaxed);
  }
  static void add_all(int64_t* sums, VectorView<const int64_t> terms) {
    for (int64_t i = 0; i < terms.size; ++i) {
      if (terms[i] != 0) fetch_add(sums[i], terms[i]);
    }
  }
  template <typename T>
  static void store(T& place, T value) {
    std::atomic_ref(place).store(value, std::memory_order_relaxed);
  }
};

/// A number for each thread of the process, from 0 on.
inline std::size_t thread_number() {
  static std::atomic<std::size_t> next{0};
  thread_local const std::size_t kNumber = next.fetch_add(1, std::memory_order_relaxed);
  return kNumber;
}

/// `num_exclusive` cells that one thread at a time takes, and two shared ones for when all are
/// taken. Of the shared ones recorders use one; a reader sends them to the other, and so finds the
/// first at rest as soon as those who had begun are done.
template <typename Cell>
class RecordCells {
 public:
  /// Calls make() for each cell, a std::unique_ptr<Cell>.
  template <typename Make>
  RecordCells(std::size_t num_exclusive, const Make& make)
      : num_exclusive_(num_exclusive), exclusive_(std::make_unique<Exclusive[]>(num_exclusive)) {
    for (std::size_t i = 0; i < num_exclusive_; ++i) exclusive_[i].cell = make();
    for (Shared& shared : shared_) shared.cell = make();
  }

  /// Calls change(access, cell) once, with a cell and how to change it. Waits for nobody.
  template <typename Change>
  void record(const Change& change) {
    const std::size_t home = thread_number();
    for (std::size_t i = 0; i < num_exclusive_; ++i) {
      Exclusive& mine = exclusive_[(home + i) % num_exclusive_];
      if (!mine.try_take()) continue;
      change(ExclusiveAccess{}, *mine.cell);
      mine.is_taken.store(false, std::memory_order_release);
      return;
    }
    record_shared(change);
  }

  /// Calls read(cell) for every cell, one after another, while nobody changes it. One reader at a
  /// time; waits for recorders that are in the cell.
  template <typename Read>
  void visit(const Read& read) const {
    const std::lock_guard lock(readers_);
    for (std::size_t i = 0; i < num_exclusive_; ++i) {
      Exclusive& cell = exclusive_[i];
      while (!cell.try_take()) std::this_thread::yield();
      const GiveBack give_back{cell};
      read(*cell.cell);
    }
    for (int turn = 0; turn < 2; ++turn) {
      const unsigned resting = active_.load();
      active_.store(1 - resting);
      Shared& shared = shared_[resting];
      // The end is read first: it never passes the beginning, so equal numbers mean rest.
      while (true) {
        const uint64_t ended = shared.ended.load();
        if (shared.begun.load() == ended) break;
        std::this_thread::yield();
      }
      read(*shared.cell);
    }
  }

 private:
  struct alignas(64) Exclusive {
    std::atomic<bool> is_taken{false};
    std::unique_ptr<Cell> cell;

    bool try_take() {
      return !is_taken.load(std::memory_order_relaxed) &&
             !is_taken.exchange(true, std::memory_order_acquire);
    }
  };
  /// A reader may run out of memory.
  struct GiveBack {
    Exclusive& cell;
    ~GiveBack() { cell.is_taken.store(false, std::memory_order_release); }
  };
  struct alignas(64) Shared {
    std::atomic<uint64_t> begun{0};
    std::atomic<uint64_t> ended{0};
    std::unique_ptr<Cell> cell;
  };

  template <typename Change>
  void record_shared(const Change& change) {
    while (true) {
      const unsigned chosen = active_.load();
      Shared& shared = shared_[chosen];
      shared.begun.fetch_add(1);
      // Who begins after a reader has turned away from this cell must not touch it.
      const bool may_change = active_.load() == chosen;
      if (may_change) change(SharedAccess{}, *shared.cell);
      shared.ended.fetch_add(1);
      if (may_change) return;
    }
  }

  std::size_t num_exclusive_;
  mutable std::unique_ptr<Exclusive[]> exclusive_;
  mutable Shared shared_[2];
  mutable std::atomic<unsigned> active_{0};
  mutable std::mutex readers_;
};

}  // namespace switchyard::stats
