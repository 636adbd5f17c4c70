// Work on many layers, each by itself, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace switchyard::stats {

/// Calls work(layer) once for every layer; what it throws is thrown here.
/// @param num_threads  at most; 0: as many as processors.
template <typename Work>
void for_each_layer(int64_t num_layers, int32_t num_threads, const Work& work) {
  if (num_threads == 0) num_threads = static_cast<int32_t>(std::thread::hardware_concurrency());
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  const auto take_layers = [&] {
    try {
      for (int64_t layer = next++; layer < num_layers; layer = next++) work(layer);
    } catch (...) {
      next = num_layers;
      const std::scoped_lock lock(failing);
      failure = std::current_exception();
    }
  };
  std::vector<std::jthread> others;
  const int64_t wanted = std::min<int64_t>(num_threads, num_layers);
  for (int64_t i = 1; i < wanted; ++i) others.emplace_back(take_layers);
  take_layers();
  others.clear();  // waits
  if (failure) std::rethrow_exception(failure);
}

}  // namespace switchyard::stats
