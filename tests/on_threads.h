// Work that several threads begin at the same time.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace switchyard::test {

/// Calls body(thread) on so many threads at once.
template <typename Body>
void on_threads(int num_threads, const Body& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(num_threads));
  std::atomic<int> ready{0};
  for (int thread = 0; thread < num_threads; ++thread) {
    threads.emplace_back([&, thread] {
      ++ready;
      while (ready.load() < num_threads) std::this_thread::yield();
      body(thread);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace switchyard::test
