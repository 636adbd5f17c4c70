// Ranks as threads of the test program.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "switchyard/in_process_communicator.h"

namespace switchyard::test {

using RankBody = std::function<void(Communicator&)>;

/// Runs `body` on every rank of a group, each on a thread.
/// @return what each rank threw, "" for nothing. A rank that throws takes its end with it.
inline std::vector<std::string> run_ranks(std::vector<std::unique_ptr<Communicator>> ends,
                                          const RankBody& body) {
  std::vector<std::string> errors(ends.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < ends.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Communicator> communicator = std::move(ends[rank]);
      try {
        body(*communicator);
      } catch (const std::exception& error) {
        errors[rank] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

inline std::vector<std::string> run_in_process(int size, const RankBody& body,
                                               const CommunicatorOptions& options = {}) {
  return run_ranks(make_in_process_communicators(size, options), body);
}

/// No rank threw.
inline std::vector<std::string> no_errors(int size) {
  return std::vector<std::string>(static_cast<std::size_t>(size));
}

}  // namespace switchyard::test
