#include "tests/simt/race_detector.h"

#include <link.h>

#include <algorithm>

#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/launch.h"
#include "tests/simt/shared_memory.h"
#include "tests/simt/symbols.h"

namespace switchyard::simt {
namespace {

const char* byte_at(const void* address) { return static_cast<const char*>(address); }

/// Code is named by 31 bits: its distance from a function of this program.
constexpr uint32_t kSiteFlag = 1u << 31;
constexpr uintptr_t kCodeBias = uintptr_t{1} << 30;

uintptr_t code_anchor() { return reinterpret_cast<uintptr_t>(&code_anchor); }

const char* verb(bool write) { return write ? "writes " : "reads "; }

}  // namespace

RaceDetector& RaceDetector::instance() {
  // Never destroyed: what outlives it may still free memory.
  static auto* detector = new RaceDetector;
  return *detector;
}

RaceDetector::RaceDetector() {
  const auto add_segments = [](dl_phdr_info* object, size_t, void* ranges) {
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const auto& segment = object->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD) continue;
      const auto* begin = reinterpret_cast<const char*>(  // NOLINT(performance-no-int-to-ptr)
          object->dlpi_addr + segment.p_vaddr);
      static_cast<std::vector<Range>*>(ranges)->push_back({begin, begin + segment.p_memsz});
    }
    return 0;
  };
  dl_iterate_phdr(add_segments, &image_);
}

uint32_t RaceDetector::code_of(const void* code) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(code) - code_anchor() + kCodeBias) &
         ~kSiteFlag;
}

uint32_t RaceDetector::code_of(CallSite site) {
  const auto known = std::find(sites_.begin(), sites_.end(), site);
  const auto index = static_cast<uint32_t>(known - sites_.begin());
  if (known == sites_.end()) sites_.push_back(site);
  return kSiteFlag | index;
}

std::string RaceDetector::line_of(uint32_t code) const {
  if ((code & kSiteFlag) != 0) return to_string(sites_[code & ~kSiteFlag]);
  // The return address is behind the call.
  const uintptr_t address = code_anchor() - kCodeBias + code - 1;
  const std::string line =
      source_line(reinterpret_cast<const void*>(address));  // NOLINT(performance-no-int-to-ptr)
  return line.empty() ? hexadecimal(address) : line;
}

std::string RaceDetector::describe(const Access& access, const char* what) const {
  return std::string(what) + " by thread " + std::to_string(access.thread) + " [warp " +
         std::to_string(access.thread / kLanes) + " lane " +
         std::to_string(access.thread % kLanes) + "] of block " + std::to_string(access.block) +
         " at " + line_of(access.code);
}

bool RaceDetector::is_private(const char* address) const {
  if (is_on_running_stack(address)) return true;
  if (address >= arguments_.begin && address < arguments_.end) return true;
  return std::any_of(image_.begin(), image_.end(), [address](const Range& range) {
    return address >= range.begin && address < range.end;
  });
}

void RaceDetector::check_order(const Region& region, const char* address, Kind kind,
                               const Access& now, const Access& earlier, const char* what) const {
  if (clocks_.is_ordered(earlier, running_block(), running_thread(), region.shared)) return;
  const bool earlier_is_read = &earlier != &region.cell(address).write;
  // A plain read beside an atomic is how the blocks of a kernel poll.
  const bool same_launch = region.shared || earlier.generation == now.generation;
  if (same_launch) {
    if (kind == Kind::kAtomic && (earlier.atomic != 0 || earlier_is_read)) return;
    if (kind == Kind::kRead && earlier.atomic != 0) return;
  }
  record_fault(FaultKind::kRace,
               where() +
                   (kind == Kind::kAtomic ? std::string("atomically changes ")
                                          : std::string(verb(kind == Kind::kWrite))) +
                   simt::describe(region, address) + ", at " + line_of(now.code) +
                   ", and nothing orders that with the " + describe(earlier, what) +
                   (same_launch ? "" : " in a launch that may still run"));
  abandon();
}

void RaceDetector::check_byte(Region& region, const char* address, Kind kind, const Access& now) {
  ShadowCell& cell = region.cell(address);
  const uint8_t mark = clocks_.initialized_mark(region.shared);
  if (kind != Kind::kWrite && cell.initialized != mark) {
    record_fault(FaultKind::kUninitialized, where() + "reads " + simt::describe(region, address) +
                                                ", at " + line_of(now.code) +
                                                ", where nobody has written" +
                                                (region.shared ? " in this block" : ""));
    abandon();
  }
  check_order(region, address, kind, now, cell.write, "write");
  if (kind == Kind::kRead) {
    const bool replaces =
        clocks_.is_ordered(cell.read, running_block(), running_thread(), region.shared);
    (replaces ? cell.read : cell.other_read) = now;
    return;
  }
  check_order(region, address, kind, now, cell.read, "read");
  check_order(region, address, kind, now, cell.other_read, "read");
  cell.write = now;
  cell.read = cell.other_read = Access{};
  cell.initialized = mark;
}

void RaceDetector::check(const char* address, size_t bytes, Kind kind, uint32_t code) {
  if (is_for_other_blocks(address)) {
    if (!is_open(address)) {
      record_fault(FaultKind::kInvalidAccess,
                   where() + std::string(verb(kind != Kind::kRead)) + std::to_string(bytes) +
                       " bytes of " + describe_closed(address) + ", at " + line_of(code));
      abandon();
    }
    address = own_view(address);
  }
  Region* region = shadow_.find(address);
  if (region != nullptr && kind != Kind::kAtomic) {
    give_way();
    region = shadow_.find(address);
  }
  if (region == nullptr) {
    if (is_private(address)) return;
    record_fault(FaultKind::kInvalidAccess,
                 where() + std::string(verb(kind != Kind::kRead)) + std::to_string(bytes) +
                     " bytes at " + hexadecimal(reinterpret_cast<uintptr_t>(address)) + ", at " +
                     line_of(code) + ", which is no device, shared or local memory of this thread");
    abandon();
  }
  if (bytes > static_cast<size_t>(region->end - address)) {
    record_fault(FaultKind::kInvalidAccess, where() + std::string(verb(kind != Kind::kRead)) +
                                                std::to_string(bytes) + " bytes, at " +
                                                line_of(code) + ", beyond the end of " +
                                                simt::describe(*region, address));
    abandon();
  }
  const int thread = running_thread();
  if (kind == Kind::kWrite) clocks_.plain_write(thread);
  Access now = clocks_.stamp(running_block(), thread, region->shared);
  now.atomic = kind == Kind::kAtomic ? 1 : 0;
  now.code = code;
  for (size_t i = 0; i < bytes; ++i) check_byte(*region, address + i, kind, now);
}

bool RaceDetector::watches() const { return running_ && !is_executor_running && in_kernel(); }

void RaceDetector::access(const void* address, size_t bytes, bool write, const void* code) {
  if (!watches()) return;
  const ExecutorScope scope;
  check(byte_at(address), bytes, write ? Kind::kWrite : Kind::kRead, code_of(code));
}

void RaceDetector::aligned_access(const void* address, size_t bytes, bool write, const void* code) {
  if (!watches()) return;
  // Of a thread's own stack the compiler knows what it may write at once.
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0 && !is_private(byte_at(address))) {
    const ExecutorScope scope;
    record_fault(FaultKind::kMisaligned, where() + std::string(verb(write)) +
                                             std::to_string(bytes) + " bytes at once at " +
                                             hexadecimal(reinterpret_cast<uintptr_t>(address)) +
                                             ", at " + line_of(code_of(code)));
    abandon();
  }
  access(address, bytes, write, code);
}

void RaceDetector::begin_launch(const Launch& launch) {
  const char* const arguments = byte_at(launch.call.get());
  arguments_ = {arguments, arguments + launch.call_bytes};
  clocks_.begin_launch(launch.stream, launch.dependent);
  running_ = true;
}

void RaceDetector::end_launch() { running_ = false; }

void RaceDetector::begin_cluster() {
  clocks_.begin_cluster();
  shadow_.clear_shared_arrays();
}

void RaceDetector::shared_array(const void* address, size_t bytes, const char* name) {
  shadow_.add_shared_array(byte_at(address), bytes, name);
}

void RaceDetector::barrier() { clocks_.barrier(); }

void RaceDetector::waited_for_cluster() {
  clocks_.waited_for_cluster(running_thread(), current->num_waits);
}

void RaceDetector::warp_barrier(int warp, unsigned lanes) { clocks_.warp_barrier(warp, lanes); }

void RaceDetector::atomic(const void* address, size_t bytes, CallSite site) {
  if (!running_) return;
  check(byte_at(address), bytes, Kind::kAtomic, code_of(site));
  clocks_.atomic(own_view(byte_at(address)), running_block(), running_thread());
}

void RaceDetector::fence() {
  if (running_thread() >= 0) clocks_.fence(running_thread());
}

void RaceDetector::waited_for_previous_grid() {
  if (running_thread() >= 0) clocks_.wait_for_previous_grid(running_thread());
}

void RaceDetector::let_next_grid_start() {
  if (running_thread() >= 0) clocks_.let_next_grid_start(running_thread());
}

void RaceDetector::allocated(const void* address, size_t bytes) {
  shadow_.add_allocation(byte_at(address), bytes);
}

void RaceDetector::freed(const void* address) { shadow_.remove_allocation(byte_at(address)); }

void RaceDetector::initialized(const void* address, size_t bytes) {
  Region* region = shadow_.find(byte_at(address));
  if (region == nullptr) return;
  const char* begin = byte_at(address);
  const char* end = std::min(begin + bytes, region->end);
  for (const char* byte = begin; byte < end; ++byte) region->cell(byte).initialized = 1;
}

}  // namespace switchyard::simt
