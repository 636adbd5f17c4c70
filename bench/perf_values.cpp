#include "bench/perf_values.h"

#include <algorithm>
#include <cstring>

#include "switchyard/errors.h"

namespace switchyard::bench {
namespace {

/// SplitMix64's finalizer (Steele et al. 2014).
uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

template <typename Element>
void fill(std::span<std::byte> out, uint64_t seed, uint64_t first) {
  const std::size_t count = out.size() / sizeof(Element);
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = static_cast<Element>(mix(seed + (first + i) * 0x9e3779b97f4a7c15u));
    std::memcpy(out.data() + i * sizeof(Element), &value, sizeof(Element));
  }
}

}  // namespace

std::vector<ElementType> element_types(const std::string& name) {
  static const std::vector<ElementType> kTypes = {
      {"int8", 1}, {"uint8", 1}, {"int32", 4},  {"uint32", 4},   {"int64", 8},    {"uint64", 8},
      {"half", 2}, {"float", 4}, {"double", 8}, {"bfloat16", 2}, {"fp8_e4m3", 1}, {"fp8_e5m2", 1}};
  if (name == "all") return kTypes;
  std::string names;
  for (const ElementType& type : kTypes) {
    if (type.name == name) return {type};
    names += type.name + ", ";
  }
  throw InvalidArgument("-d is '" + name + "', must be " + names + "or all");
}

void fill_elements(std::span<std::byte> out, int64_t element_size, int rank, int64_t repetition,
                   int64_t first) {
  const uint64_t seed =
      mix(mix(static_cast<uint64_t>(rank) + 1) + static_cast<uint64_t>(repetition));
  const auto offset = static_cast<uint64_t>(first);
  switch (element_size) {
    case 1:
      return fill<uint8_t>(out, seed, offset);
    case 2:
      return fill<uint16_t>(out, seed, offset);
    case 4:
      return fill<uint32_t>(out, seed, offset);
    default:
      return fill<uint64_t>(out, seed, offset);
  }
}

int64_t count_wrong(std::span<const std::byte> elements, int64_t element_size, int rank,
                    int64_t repetition, int64_t first) {
  constexpr std::size_t kChunkBytes = 1 << 16;
  std::vector<std::byte> expected(std::min(kChunkBytes, elements.size()));
  const auto size = static_cast<std::size_t>(element_size);
  int64_t wrong = 0;
  for (std::size_t at = 0; at < elements.size(); at += kChunkBytes) {
    const auto actual = elements.subspan(at, std::min(kChunkBytes, elements.size() - at));
    fill_elements(std::span(expected).first(actual.size()), element_size, rank, repetition,
                  first + static_cast<int64_t>(at / size));
    if (std::memcmp(actual.data(), expected.data(), actual.size()) == 0) continue;
    for (std::size_t i = 0; i < actual.size(); i += size) {
      wrong += std::memcmp(actual.data() + i, expected.data() + i, size) != 0 ? 1 : 0;
    }
  }
  return wrong;
}

}  // namespace switchyard::bench
