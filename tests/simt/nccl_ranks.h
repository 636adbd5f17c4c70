// Ranks as threads of the test program, each with a device and its end of an NCCL group.
#pragma once

#include <gtest/gtest.h>

#include "switchyard/nccl_communicator.h"
#include "tests/rank_threads.h"
#include "tests/simt/nccl.h"
#include "tests/simt/settings.h"

namespace switchyard::test {

/// The stand-ins as they are at the start, and as they must be at the end.
class SimtNccl : public testing::Test {
 protected:
  SimtNccl() {
    simt::settings().num_devices = simt::kMaxDevices;
    simt::settings().order = simt::Order::kRandom;
  }
  ~SimtNccl() override { simt::reset_nccl(); }

  void TearDown() override {
    const simt::NcclStatistics& seen = simt::nccl_statistics();
    EXPECT_EQ(seen.misuses, 0) << seen.last_misuse;
    EXPECT_EQ(seen.created, seen.destroyed + seen.aborted) << "communicators are left";
  }

 private:
  simt::ScopedSettings scope_;
};

/// @return what each rank threw, "" for nothing.
inline std::vector<std::string> run_threads(int size, const std::function<void(int)>& body) {
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        if (cudaSetDevice(rank) != cudaSuccess) throw CudaError("cudaSetDevice");
        body(rank);
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

/// The same with an end for every rank, which it takes with it when it throws.
inline std::vector<std::string> run_nccl(int size, const RankBody& body,
                                         const CommunicatorOptions& options = {}) {
  const NcclUniqueId id = create_nccl_unique_id();
  return run_threads(size, [&](int rank) {
    const auto communicator = make_nccl_communicator(id, rank, size, options);
    body(*communicator);
  });
}

}  // namespace switchyard::test
