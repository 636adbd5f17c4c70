#include "switchyard/stream_copy.h"

#include <gtest/gtest.h>

#include <vector>

namespace switchyard {
namespace {

TEST(StreamCopy, WritesItsBytesAndNoOthers) {
  constexpr std::byte kUntouched{0xa5};
  std::vector<std::byte> from(1000);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7);
  for (const std::size_t offset : {0, 1, 31, 64}) {
    for (const std::size_t count : {0, 1, 63, 64, 65, 500}) {
      std::vector<std::byte> to(1000, kUntouched);
      stream_copy(to.data() + offset, from.data() + 3, static_cast<int64_t>(count));
      for (std::size_t i = 0; i < to.size(); ++i) {
        const bool is_copied = i >= offset && i < offset + count;
        ASSERT_EQ(to[i], is_copied ? from[3 + i - offset] : kUntouched) << i;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard
