#include "cpu/result_staging.h"

#include <cstring>

#include "switchyard/buffer.h"

namespace switchyard::cpu {
namespace {

class HostStaging final : public ResultStaging {
 public:
  HostStaging(int64_t num_slots, int64_t slot_bytes)
      : slot_bytes_((slot_bytes + 63) / 64 * 64), memory_(num_slots * slot_bytes_) {}

  void copy(int64_t slot, std::span<const Part> parts, StreamView) override {
    std::byte* to = memory_.data() + slot * slot_bytes_;
    for (const Part& part : parts) {
      if (part.bytes == 0) continue;
      std::memcpy(to, part.data, static_cast<std::size_t>(part.bytes));
      to += part.bytes;
    }
  }
  [[nodiscard]] bool has_arrived(int64_t) const override { return true; }
  void wait_for(int64_t) const override {}
  [[nodiscard]] const std::byte* data(int64_t slot) const override {
    return memory_.data() + slot * slot_bytes_;
  }

 private:
  int64_t slot_bytes_;
  Buffer<std::byte> memory_;
};

}  // namespace

std::unique_ptr<ResultStaging> make_host_staging(int64_t num_slots, int64_t slot_bytes) {
  return std::make_unique<HostStaging>(num_slots, slot_bytes);
}

}  // namespace switchyard::cpu
