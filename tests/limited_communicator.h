// A transport that can do less than the one below it: what MPI and NCCL do not offer.
#pragma once

#include <memory>

#include "switchyard/communicator.h"

namespace switchyard::test {

class LimitedCommunicator final : public Communicator {
 public:
  LimitedCommunicator(std::unique_ptr<Communicator> below, bool scatters)
      : Communicator(below->rank(), below->size(), below->backend(), below->options()),
        below_(std::move(below)),
        scatters_(scatters) {}

  [[nodiscard]] const char* transport() const override { return "limited"; }
  [[nodiscard]] bool moves_scattered_rows() const override { return scatters_; }

 protected:
  void do_all_gather(const char* phase, std::span<const std::byte> mine,
                     std::span<std::byte> all) override {
    below_->all_gather(phase, mine, all);
  }
  void do_start(const char* phase, const SentRows& sent, const ReceivedRows& received,
                StreamView stream) override {
    below_->start_all_to_all(phase, sent, received, stream);
  }
  void do_finish(const char*, const SentRows&, const ReceivedRows&, StreamView stream) override {
    below_->finish_all_to_all(stream);
  }
  void do_abort(const std::string& reason) noexcept override { below_->abort(reason); }

 private:
  std::unique_ptr<Communicator> below_;
  bool scatters_;
};

}  // namespace switchyard::test
