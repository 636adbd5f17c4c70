// Accesses that no memory answers: faults in kernels, a message for host code.
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <sys/mman.h>

#include "tests/simt/block.h"
#include "tests/simt/device_memory.h"
#include "tests/simt/executor.h"
#include "tests/simt/shared_memory.h"

#if defined(__x86_64__)
#include <ucontext.h>
#endif

namespace switchyard::simt {
namespace {

struct sigaction previous_action;

const void* code_address([[maybe_unused]] const void* context) {
#if defined(__x86_64__)
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  return reinterpret_cast<const void*>(registers[REG_RIP]);  // NOLINT(performance-no-int-to-ptr)
#else
  return nullptr;
#endif
}

/// An address that is no address, such as that of a vector instruction which wants alignment.
bool is_unknown(const siginfo_t& info) { return info.si_code == SI_KERNEL; }

std::string describe(const siginfo_t& info) {
  if (is_unknown(info)) {
    return "accesses memory in a way that no address allows, such as without alignment";
  }
  if (is_for_other_blocks(info.si_addr)) return "accesses " + describe_closed(info.si_addr);
  return "accesses " + hexadecimal(reinterpret_cast<uintptr_t>(info.si_addr)) + ", " +
         (device_memory().is_in_range(info.si_addr) ? device_memory().describe(info.si_addr)
                                                    : "where no memory is");
}

/// Leaves the signal handler by leaving the fiber: the handler runs on a stack of its own and the
/// signal stays unblocked, so nothing is left behind.
[[noreturn]] void abandon_kernel(const siginfo_t& info, const void* code) {
  {
    const ExecutorScope scope;
    if (is_in_guard(current->fiber, info.si_addr)) {
      record_fault(FaultKind::kStackOverflow,
                   where() + "more than " + std::to_string(kStackBytes) + " bytes of local memory");
    } else {
      record_code(code);
      record_fault(is_unknown(info) ? FaultKind::kMisaligned : FaultKind::kInvalidAccess,
                   where() + describe(info));
    }
  }
  abandon();
}

void on_invalid_access(int signal, siginfo_t* info, void* context) {
  if (in_kernel()) abandon_kernel(*info, code_address(context));
  if (!is_unknown(*info) && device_memory().is_in_range(info->si_addr)) {
    std::fprintf(stderr, "simt: host code touches device memory: %s\n",
                 device_memory().describe(info->si_addr).c_str());
  }
  // Back in the program the access happens again and meets whoever watched before.
  sigaction(signal, &previous_action, nullptr);
}

/// The handler cannot run on a stack that has overflowed.
class HandlerStack {
 public:
  HandlerStack() {
    stack_t existing{};
    sigaltstack(nullptr, &existing);
    if ((existing.ss_flags & SS_DISABLE) == 0) return;  // a sanitizer's
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) return;
    stack_t stack{};
    stack.ss_sp = memory_;
    stack.ss_size = kBytes;
    sigaltstack(&stack, nullptr);
  }
  HandlerStack(const HandlerStack&) = delete;
  HandlerStack& operator=(const HandlerStack&) = delete;
  ~HandlerStack() {
    if (memory_ == MAP_FAILED) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    munmap(memory_, kBytes);
  }

 private:
  static constexpr size_t kBytes = 256 << 10;
  void* memory_ = MAP_FAILED;
};

}  // namespace

void watch_invalid_accesses() {
  thread_local const HandlerStack kStack;
  static const bool kInstalled = [] {
    struct sigaction action {};
    action.sa_sigaction = on_invalid_access;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    return sigaction(SIGSEGV, &action, &previous_action) == 0;
  }();
  static_cast<void>(kInstalled);
}

}  // namespace switchyard::simt
