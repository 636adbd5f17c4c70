// Races between barriers, reads of what nobody wrote and accesses to what a kernel must not touch,
// from the report that every access of an instrumented kernel makes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/simt/race_observer.h"
#include "tests/simt/shadow_memory.h"
#include "tests/simt/thread_clocks.h"

namespace switchyard::simt {

class RaceDetector final : public RaceObserver {
 public:
  static RaceDetector& instance();

  /// An access of the running kernel by the code at `code`. Ends the launch if it is wrong.
  void access(const void* address, size_t bytes, bool write, const void* code);
  /// As access(), and aligned to its size, as a GPU wants it.
  void aligned_access(const void* address, size_t bytes, bool write, const void* code);

  void begin_launch(const Launch& launch) override;
  void end_launch() override;
  void begin_cluster() override;
  void shared_array(const void* address, size_t bytes, const char* name) override;
  void barrier() override;
  void waited_for_cluster() override;
  void warp_barrier(int warp, unsigned lanes) override;
  void atomic(const void* address, size_t bytes, CallSite site) override;
  void fence() override;
  void waited_for_previous_grid() override;
  void let_next_grid_start() override;
  void allocated(const void* address, size_t bytes) override;
  void freed(const void* address) override;
  void initialized(const void* address, size_t bytes) override;

 private:
  struct Range {
    const char* begin;
    const char* end;
  };
  enum class Kind { kRead, kWrite, kAtomic };

  RaceDetector();
  /// Whether a kernel's own code runs.
  [[nodiscard]] bool watches() const;
  uint32_t code_of(CallSite site);
  [[nodiscard]] static uint32_t code_of(const void* code);
  [[nodiscard]] std::string line_of(uint32_t code) const;
  [[nodiscard]] std::string describe(const Access& access, const char* what) const;
  [[nodiscard]] bool is_private(const char* address) const;

  void check(const char* address, size_t bytes, Kind kind, uint32_t code);
  void check_byte(Region& region, const char* address, Kind kind, const Access& now);
  void check_order(const Region& region, const char* address, Kind kind, const Access& now,
                   const Access& earlier, const char* what) const;

  ShadowMemory shadow_;
  ThreadClocks clocks_;
  std::vector<Range> image_;  // of the program: constants and variables
  Range arguments_{nullptr, nullptr};
  std::vector<CallSite> sites_;  // of atomics
  bool running_ = false;
};

}  // namespace switchyard::simt
