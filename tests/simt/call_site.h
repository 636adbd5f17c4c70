// Where in a kernel's source an intrinsic was called.
#pragma once

#include <cstring>
#include <string>

namespace switchyard::simt {

/// As a default argument it names the caller. Unlike a program counter it stays the same when a
/// loop is unrolled or a function inlined. std::source_location would do, but clang 14 lacks it.
struct CallSite {
  const char* file = "";
  int line = 0;

  static constexpr CallSite here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  friend bool operator==(const CallSite& a, const CallSite& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
  }
};

/// "routing_kernels.cuh:42".
std::string to_string(CallSite site);

}  // namespace switchyard::simt
