#include "nccl/agreement.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "nccl/refuse.h"

namespace switchyard::nccl {

void Statement::refuse(const std::string& why) {
  const std::size_t length = std::min(why.size(), refusal.size() - 1);
  std::copy_n(why.begin(), length, refusal.begin());
  refusal[length] = '\0';
}

Agreement::Agreement(Communicator& communicator, std::size_t extra_bytes)
    : communicator_(communicator),
      mine_(sizeof(Statement) + extra_bytes),
      all_(mine_.size() * static_cast<std::size_t>(communicator.size())) {}

void Agreement::make(const char* phase, std::initializer_list<AgreedNumber> numbers,
                     std::initializer_list<int64_t> told, const std::string& refusal) {
  Statement mine;
  std::size_t next = 0;
  for (const AgreedNumber& number : numbers) mine.numbers[next++] = number.value;
  num_agreed_ = next;
  for (const int64_t value : told) mine.numbers[next++] = value;
  mine.refuse(refusal);
  std::memcpy(mine_.data(), &mine, sizeof(mine));
  communicator_.all_gather(phase, mine_, all_);

  const int size = communicator_.size();
  for (int rank = 0; rank < size; ++rank) {
    const char* const refusal_there =
        reinterpret_cast<const char*>(statement_of(rank) + offsetof(Statement, refusal));
    if (*refusal_there != '\0') nccl::refuse(phase, ", rank ", rank, ": ", refusal_there);
  }
  for (int rank = 1; rank < size; ++rank) {
    for (std::size_t i = 0; i < num_agreed_; ++i) {
      const int64_t theirs = number(rank, i);
      const int64_t expected = number(0, i);
      if (theirs == expected) continue;
      nccl::refuse(phase, ", rank ", rank, ": ", numbers.begin()[i].name, " is ", theirs,
                   ", expected ", expected, " as on rank 0");
    }
  }
}

int64_t Agreement::told(int rank, std::size_t index) const {
  return number(rank, num_agreed_ + index);
}

std::span<const std::byte> Agreement::extra_of(int rank) const {
  return {statement_of(rank) + sizeof(Statement), mine_.size() - sizeof(Statement)};
}

const std::byte* Agreement::statement_of(int rank) const {
  return all_.data() + mine_.size() * static_cast<std::size_t>(rank);
}

int64_t Agreement::number(int rank, std::size_t index) const {
  int64_t value = 0;
  std::memcpy(&value, statement_of(rank) + offsetof(Statement, numbers) + index * sizeof(value),
              sizeof(value));
  return value;
}

}  // namespace switchyard::nccl
