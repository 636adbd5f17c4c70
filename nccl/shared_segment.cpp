#include "nccl/shared_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace switchyard::nccl {

SharedSegment::~SharedSegment() {
  if (data_ != nullptr) ::munmap(data_, static_cast<std::size_t>(size_));
}

SharedSegment SharedSegment::map(int file, int64_t bytes) {
  void* const memory =
      ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return {};
  return {static_cast<std::byte*>(memory), bytes};
}

SharedSegment SharedSegment::create(const std::string& name, int64_t bytes) {
  constexpr mode_t kOwnerOnly = 0600;
  const int file = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, kOwnerOnly);
  if (file < 0) return {};
  if (::posix_fallocate(file, 0, bytes) != 0) {
    ::close(file);
    ::shm_unlink(name.c_str());
    return {};
  }
  SharedSegment made = map(file, bytes);
  if (made.empty()) ::shm_unlink(name.c_str());
  return made;
}

SharedSegment SharedSegment::open(const std::string& name, int64_t bytes) {
  const int file = ::shm_open(name.c_str(), O_RDWR, 0);
  if (file < 0) return {};
  struct stat status {};
  if (::fstat(file, &status) != 0 || status.st_size < bytes) {
    ::close(file);
    return {};
  }
  return map(file, bytes);
}

void SharedSegment::remove_name(const std::string& name) { ::shm_unlink(name.c_str()); }

}  // namespace switchyard::nccl
