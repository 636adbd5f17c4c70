// Runs ranks that are threads of one process.
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/in_process_communicator.h"

namespace switchyard {
namespace {

/// A rank that fails takes the others with it, which then fail to reach it.
bool is_consequence(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const CommunicationError&) {
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

void run_ranks_as_threads(int size, const std::function<void(Communicator&)>& body,
                          const CommunicatorOptions& options) {
  std::vector<std::unique_ptr<Communicator>> ends = make_in_process_communicators(size, options);
  std::vector<std::exception_ptr> errors(ends.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < ends.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Communicator> communicator = std::move(ends[rank]);
      try {
        body(*communicator);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::exception_ptr first;
  for (const std::exception_ptr& error : errors) {
    if (error == nullptr) continue;
    if (!is_consequence(error)) std::rethrow_exception(error);
    if (first == nullptr) first = error;
  }
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace switchyard
