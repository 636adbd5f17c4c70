#include "tests/simt/context_switch.h"

#include <cstdint>

#if defined(__x86_64__) && !defined(SIMT_PORTABLE_CONTEXT_SWITCH)

// Only what a function must preserve is saved, on the stack that is left. Ten times faster than
// swapcontext, which also asks the kernel for the signal mask.
extern "C" void simt_switch_stacks(void** from, void* to);
asm(R"(
.text
.globl simt_switch_stacks
.hidden simt_switch_stacks
.type simt_switch_stacks,@function
simt_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stacks,.-simt_switch_stacks
)");

namespace switchyard::simt {

void* make_context(char* stack, size_t bytes, void (*entry)()) {
  constexpr int kSavedRegisters = 6;
  const size_t beyond_alignment = reinterpret_cast<uintptr_t>(stack + bytes) % 16;
  auto* top = reinterpret_cast<uint64_t*>(stack + bytes - beyond_alignment);
  *--top = 0;  // where `entry` would return to; keeps its stack aligned as a call would
  *--top = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = 0;
  return top;
}

void switch_context(void** from, void* to) { simt_switch_stacks(from, to); }

}  // namespace switchyard::simt

#else

#include <ucontext.h>

#include <deque>

namespace switchyard::simt {
namespace {

/// Contexts live as long as the program; a stack that is prepared anew takes another.
ucontext_t* new_context() {
  static std::deque<ucontext_t> contexts;
  return &contexts.emplace_back();
}

}  // namespace

void* make_context(char* stack, size_t bytes, void (*entry)()) {
  ucontext_t* context = new_context();
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = bytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

void switch_context(void** from, void* to) {
  if (*from == nullptr) *from = new_context();
  swapcontext(static_cast<ucontext_t*>(*from), static_cast<ucontext_t*>(to));
}

}  // namespace switchyard::simt

#endif
