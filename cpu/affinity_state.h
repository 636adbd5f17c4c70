// How the host touches the state of expert affinity, which threads share: each number by itself and
// in no order with others.
#pragma once

#include <atomic>

namespace switchyard::cpu {

template <typename T>
T load_relaxed(T& shared) {
  static_assert(std::atomic_ref<T>::is_always_lock_free);
  return std::atomic_ref<T>(shared).load(std::memory_order_relaxed);
}

template <typename T>
void store_relaxed(T& shared, T value) {
  std::atomic_ref<T>(shared).store(value, std::memory_order_relaxed);
}

}  // namespace switchyard::cpu
