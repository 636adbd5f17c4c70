// Logits and scores of rows, as clean float32 in scratch memory.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_INPUTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_INPUTS_INL_H_
#undef SWITCHYARD_CPU_ROW_INPUTS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_INPUTS_INL_H_
#endif

#include <bit>
#include <cmath>
#include <limits>

#include "cpu/numerics-inl.h"
#include "cpu/routing_task.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using FloatVec = hn::Vec<FloatTag>;
using IntVec = hn::Vec<IntTag>;

// Lanes of a vector, and so rows of a block.
constexpr size_t kLanes = HWY_MAX_BYTES / 4 > 16 ? 16 : HWY_MAX_BYTES / 4;
static_assert(kLanes >= 4 && 16 % kLanes == 0, "rows are padded to a multiple of 16");

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Scratch rows hold a multiple of this many floats.
constexpr size_t kRowPadding = 16;
constexpr size_t PaddedSize(size_t size) {
  return (size + kRowPadding - 1) / kRowPadding * kRowPadding;
}

HWY_INLINE FloatVec LoadWidened(const float* p) { return hn::LoadU(FloatTag(), p); }

HWY_INLINE FloatVec LoadWidened(const BFloat16* p) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

constexpr size_t kLineBytes = 64;    // of a cache
constexpr size_t kPageBytes = 4096;  // the least that machines have

// Begins to fetch `size` bytes that lie `ahead` bytes behind `row` into the second cache, for the
// first one holds the rows at hand; 0 for none.
HWY_INLINE void PrefetchRow(const void* row, int64_t ahead, size_t size) {
  if (ahead == 0) return;
  const std::byte* const next = static_cast<const std::byte*>(row) + ahead;
  for (size_t i = 0; i < size; i += kLineBytes) __builtin_prefetch(next + i, 0, 2);
  // Fetches for the second cache are dropped while the core does not know where a page lies. Those
  // for the first one are not: one a page, as far ahead again, makes all of the next block's count.
  const std::byte* const after = next + ahead;
  for (size_t i = -reinterpret_cast<uintptr_t>(after) % kPageBytes; i < size; i += kPageBytes) {
    __builtin_prefetch(after + i, 0, 3);
  }
}

// Highway's own float16 conversion flushes or rounds on some targets; this one is exact on all.
HWY_INLINE FloatVec LoadWidened(const Float16* p) {
  const FloatTag d;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
  const auto scaled = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto infinite = hn::Gt(magnitude, hn::Set(d32, (0x7bffu << 13)));
  const auto widened = hn::IfThenElse(infinite, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)),
                                      hn::BitCast(d32, scaled));
  return hn::BitCast(d, hn::Or(widened, sign));
}

// The first `count` floats, at most a vector, and no byte behind them; the other lanes are -inf.
template <class D>
HWY_INLINE hn::Vec<D> LoadPadded(D d, const float* p, size_t count) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  const auto present = hn::FirstN(d, count);
  return hn::IfThenElse(present, hn::MaskedLoad(present, d, p), hn::Set(d, kMinusInfinity));
#else
  // Masked loads of the other targets read whole vectors.
  HWY_ALIGN float values[hn::MaxLanes(D())];
  for (size_t i = 0; i < hn::Lanes(d); ++i) values[i] = i < count ? p[i] : kMinusInfinity;
  return hn::Load(d, values);
#endif
}

// Copies a row, widened, and pads it with -inf to a multiple of kRowPadding. Masked experts become
// -inf; NaN and infinities stay as they are.
template <typename T>
HWY_INLINE void WidenRow(const T* HWY_RESTRICT row, size_t num_experts, const uint8_t* expert_mask,
                         float* HWY_RESTRICT out) {
  const FloatTag d;
  const size_t padded = PaddedSize(num_experts);
  for (size_t i = num_experts / kRowPadding * kRowPadding; i < padded; i += kLanes) {
    hn::Store(hn::Set(d, kMinusInfinity), d, out + i);
  }
  size_t i = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    for (; i + kLanes <= num_experts; i += kLanes) hn::Store(hn::LoadU(d, row + i), d, out + i);
    if (i < num_experts) hn::Store(LoadPadded(d, row + i, num_experts - i), d, out + i);
  } else if (num_experts >= kLanes) {
    // The last vector overlaps the one before it.
    for (; i + kLanes <= num_experts; i += kLanes) hn::Store(LoadWidened(row + i), d, out + i);
    if (i < num_experts) {
      i = num_experts - kLanes;
      hn::StoreU(LoadWidened(row + i), d, out + i);
    }
  } else {
    for (; i < num_experts; ++i) out[i] = widen(row[i]);
  }
  if (expert_mask != nullptr) {
    for (i = 0; i < num_experts; ++i) {
      if (expert_mask[i] == 0) out[i] = kMinusInfinity;
    }
  }
}

HWY_INLINE void WidenRow(const RouteTask& task, int64_t token, float* HWY_RESTRICT out) {
  const auto num_experts = static_cast<size_t>(task.config.num_experts);
  switch (task.logits.dtype) {
    case DataType::kFloat32:
      return WidenRow(task.logits.as<float>().row(token), num_experts, task.expert_mask, out);
    case DataType::kFloat16:
      return WidenRow(task.logits.as<Float16>().row(token), num_experts, task.expert_mask, out);
    case DataType::kBFloat16:
      return WidenRow(task.logits.as<BFloat16>().row(token), num_experts, task.expert_mask, out);
  }
}

HWY_INLINE hn::Mask<FloatTag> IsFiniteMask(FloatVec x) {
  const FloatTag d;
  return hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::infinity()));
}

// The greater of x and best, and best where x is NaN.
HWY_INLINE FloatVec MaxOfNumbers(FloatVec x, FloatVec best) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  return hn::Max(x, best);  // the second operand where one is NaN
#else
  return hn::IfThenElse(hn::Gt(x, best), x, best);
#endif
}

// The lesser of best and x, and x where it is NaN.
HWY_INLINE FloatVec LesserOrNan(FloatVec best, FloatVec x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  return hn::Min(best, x);  // the second operand where one is NaN
#else
  return hn::IfThenElse(hn::Lt(best, x), best, x);
#endif
}

// The greatest lane; no lane is NaN.
HWY_INLINE float GreatestLane(FloatVec x) {
  const FloatTag d;
#if HWY_TARGET == HWY_EMU128
  // MaxOfLanes starts from -FLT_MAX there, and so misses -inf.
  HWY_ALIGN float lanes[kLanes];
  hn::Store(x, d, lanes);
  float best = lanes[0];
  for (size_t i = 1; i < kLanes; ++i) best = HWY_MAX(best, lanes[i]);
  return best;
#else
  return hn::GetLane(hn::MaxOfLanes(d, x));
#endif
}

// Replaces NaN and infinities by -inf and -0 by +0. Returns the row's maximum.
HWY_INLINE float CleanRow(float* HWY_RESTRICT row, size_t padded) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec best = lowest;
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec x = hn::Load(d, row + i);
    const FloatVec clean = hn::IfThenElse(IsFiniteMask(x), hn::Add(x, hn::Zero(d)), lowest);
    hn::Store(clean, d, row + i);
    best = hn::Max(best, clean);
  }
  return GreatestLane(best);
}

// The score of finite logits; `kNormal` promises logits of at least kLowestNormal.
template <bool kNormal>
HWY_INLINE FloatVec Score(ScoreFunction function, FloatVec logit) {
  const FloatTag d;
  switch (function) {
    case ScoreFunction::kSigmoid:
      return kNormal ? SigmoidNormal(d, logit) : Sigmoid(d, logit);
    case ScoreFunction::kSqrtSoftplus:
      return kNormal ? SqrtSoftplusNormal(d, logit) : SqrtSoftplus(d, logit);
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      break;
  }
  return hn::Add(logit, hn::Zero(d));
}

// sum of exp_or_zero(row - max) over a padded row by the contract's tree, down to one vector whose
// lanes are still to be folded. `max` is finite; NaN counts nothing.
template <typename T>
HWY_INLINE FloatVec ExpSumLanes(const T* HWY_RESTRICT row, size_t num_experts, float max) {
  const FloatTag d;
  const FloatVec reference = hn::Set(d, max);
  const size_t present = PaddedSize(num_experts) / kLanes;
  const size_t leaves = HWY_MAX(std::bit_ceil(num_experts) / kLanes, size_t{1});
  const auto leaf = [&](size_t i) HWY_ATTR {
    if (i >= present) return hn::Zero(d);
    return ExpOrZero(d, hn::Sub(LoadWidened(row + i * kLanes), reference));
  };
  if (leaves == 1) return leaf(0);
  if (leaves == 2) return hn::Add(leaf(0), leaf(1));
  // The first two folds of four leaves at once, then the rest in memory.
  HWY_ALIGN float partial[kMaxExperts / 4];
  size_t count = leaves / 4;
  for (size_t i = 0; i < count; ++i) {
    const FloatVec even = hn::Add(leaf(i), leaf(i + 2 * count));
    const FloatVec odd = hn::Add(leaf(i + count), leaf(i + 3 * count));
    hn::Store(hn::Add(even, odd), d, partial + i * kLanes);
  }
  for (count /= 2; count > 0; count /= 2) {
    for (size_t i = 0; i < count; ++i) {
      float* p = partial + i * kLanes;
      hn::Store(hn::Add(hn::Load(d, p), hn::Load(d, p + count * kLanes)), d, p);
    }
  }
  return hn::Load(d, partial);
}

// The contract's sum of `size` values, a power of two; overwrites them.
HWY_INLINE float FoldedSum(float* values, size_t size) {
  for (size_t half = size / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) values[i] += values[i + half];
  }
  return values[0];
}

// The contract's sum of 8 terms; fewer are padded with zeros, which change no bit.
HWY_INLINE float FoldEight(const float* t) {
  return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

HWY_INLINE float FoldLanes(FloatVec lanes) {
  const FloatTag d;
  HWY_ALIGN float values[kLanes];
  hn::Store(lanes, d, values);
  return FoldedSum(values, kLanes);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
