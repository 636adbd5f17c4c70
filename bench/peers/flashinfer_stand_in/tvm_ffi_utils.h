// In the place of FlashInfer's header of this name: the checks of its routing, without TVM.
#pragma once

#include <sstream>
#include <stdexcept>

namespace switchyard::bench {

/// Collects what is said and throws it at the end of the statement.
class Complaint {
 public:
  explicit Complaint(const char* what) { text_ << what; }
  ~Complaint() noexcept(false) { throw std::runtime_error(text_.str()); }
  template <typename T>
  Complaint& operator<<(const T& part) {
    text_ << ' ' << part;
    return *this;
  }

 private:
  std::ostringstream text_;
};

}  // namespace switchyard::bench

#define TVM_FFI_LOG_AND_THROW(kind) switchyard::bench::Complaint(#kind ":")
#define TVM_FFI_ICHECK(condition) \
  if (!(condition)) switchyard::bench::Complaint("refused: " #condition)
#define TVM_FFI_ICHECK_LE(a, b) TVM_FFI_ICHECK((a) <= (b))
