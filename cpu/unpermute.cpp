#include "cpu/unpermute.h"

#include <algorithm>

#include "switchyard/permutation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/unpermute.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "cpu/numerics-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The vector forms of widen(), to_bfloat16() and to_float16() in switchyard/data_type.h. Highway's
// own conversions leave subnormals and the rounding to the target.

template <class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const BFloat16* from) {
  const hn::RebindToUnsigned<D> d32;
  const hn::Rebind<uint16_t, D> d16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

template <class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const Float16* from) {
  const hn::RebindToUnsigned<D> d32;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, &from->bits));
  const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffu));
  const auto sign = hn::ShiftLeft<16>(hn::Xor(bits, magnitude));
  // Read as a float32 with float16's fields the value is 2^112 times too small, and what should be
  // infinite or NaN ends up at 2^16 and above.
  const auto scaled = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f));
  const auto special = hn::Ge(scaled, hn::Set(d, 0x1p16f));
  const auto infinity = hn::BitCast(d, hn::Set(d32, 0x7f800000u));
  return hn::Or(hn::Or(scaled, hn::IfThenElseZero(special, infinity)), hn::BitCast(d, sign));
}

// The stores take values whose NaNs are all the canonical one.

template <class D, class V = hn::Vec<D>>
HWY_INLINE void StoreRounded(D d, V value, float* to) {
  hn::StoreU(value, d, to);
}

template <class D, class V>
HWY_INLINE void StoreLowHalves(D, V words, uint16_t* to) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, words)), d16, to);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE void StoreRounded(D d, V value, BFloat16* to) {
  const hn::RebindToUnsigned<D> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(d32, 0x7fffu)), odd);
  StoreLowHalves(d, hn::ShiftRight<16>(rounded), &to->bits);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE void StoreRounded(D d, V value, Float16* to) {
  const hn::RebindToUnsigned<D> d32;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(d32, value);
  const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffffffu));
  const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d32, 1u));
  const auto normal = hn::ShiftRight<13>(
      hn::Sub(hn::Add(hn::Add(magnitude, hn::Set(d32, 0xfffu)), odd), hn::Set(d32, 0x38000000u)));
  // Below 2^-14: adding 0.5 lets the adder round at float16's smallest step, 2^-24.
  const auto shifted = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f));
  const auto subnormal = hn::Sub(hn::BitCast(d32, shifted), hn::Set(d32, 0x3f000000u));

  const auto compared = hn::BitCast(di, magnitude);  // never negative, so a signed compare will do
  const auto is_subnormal = hn::Lt(compared, hn::Set(di, 0x38800000));
  const auto is_infinite = hn::Gt(compared, hn::Set(di, 0x477fefff));  // or rounds to it
  const auto is_nan = hn::Gt(compared, hn::Set(di, 0x7f800000));
  auto half = hn::BitCast(di, normal);
  half = hn::IfThenElse(is_subnormal, hn::BitCast(di, subnormal), half);
  half = hn::IfThenElse(is_infinite, hn::Set(di, 0x7c00), half);
  half = hn::IfThenElse(is_nan, hn::Set(di, 0x7e00), half);
  StoreLowHalves(d, hn::Or(hn::BitCast(d32, half), sign), &to->bits);
}

template <class D, class V = hn::Vec<D>, typename Out>
HWY_INLINE void StoreSum(D d, V sum, Out* to) {
  const hn::RebindToUnsigned<D> d32;
  const V canonical = hn::BitCast(d, hn::Set(d32, 0x7fc00000u));
  StoreRounded(d, hn::IfThenElse(hn::IsNaN(sum), canonical, sum), to);
}

// One slot's share of a token.
template <typename In>
struct Term {
  const In* row;
  float weight;
};

// The columns of one vector.
template <class D, typename In, typename Out>
HWY_INLINE void SumOne(D d, const Term<In>* terms, size_t num_terms, size_t column, Out* to) {
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < num_terms; ++i) {
    const auto weight = hn::Set(d, terms[i].weight);
    sum = FusedMulAdd(d, weight, LoadWide(d, terms[i].row + column), sum);
  }
  StoreSum(d, sum, to + column);
}

// The columns of four vectors: enough independent sums to cover the latency of an addition.
template <class D, typename In, typename Out>
HWY_INLINE void SumFour(D d, const Term<In>* terms, size_t num_terms, size_t column, Out* to) {
  const size_t N = hn::Lanes(d);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  for (size_t i = 0; i < num_terms; ++i) {
    const auto weight = hn::Set(d, terms[i].weight);
    const In* row = terms[i].row + column;
    sum0 = FusedMulAdd(d, weight, LoadWide(d, row), sum0);
    sum1 = FusedMulAdd(d, weight, LoadWide(d, row + N), sum1);
    sum2 = FusedMulAdd(d, weight, LoadWide(d, row + 2 * N), sum2);
    sum3 = FusedMulAdd(d, weight, LoadWide(d, row + 3 * N), sum3);
  }
  StoreSum(d, sum0, to + column);
  StoreSum(d, sum1, to + column + N);
  StoreSum(d, sum2, to + column + 2 * N);
  StoreSum(d, sum3, to + column + 3 * N);
}

template <typename In, typename Out>
void SumTerms(const Term<In>* terms, size_t num_terms, size_t num_columns, Out* to) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  size_t column = 0;
  for (; column + 4 * N <= num_columns; column += 4 * N) SumFour(d, terms, num_terms, column, to);
  for (; column + N <= num_columns; column += N) SumOne(d, terms, num_terms, column, to);
  if (column == num_columns) return;
  if (num_columns >= N) {  // the last columns again, so that they fill a vector
    SumOne(d, terms, num_terms, num_columns - N, to);
    return;
  }
  const hn::CappedTag<float, 1> d1;
  for (; column < num_columns; ++column) SumOne(d1, terms, num_terms, column, to);
}

HWY_INLINE float WeightAt(const ConstTensorView& weights, int64_t token, int64_t slot) {
  if (weights.data == nullptr) return 1.0f;
  if (weights.dtype == DataType::kFloat32) return weights.as<float>().row(token)[slot];
  return widen(weights.as<BFloat16>().row(token)[slot]);
}

template <typename In, typename Out, class Rows>
void UnpermuteTyped(const UnpermuteArgs<Rows>& args, int64_t begin, int64_t end) {
  const MatrixView<Out> tokens = args.tokens.template as<Out>();
  Term<In> terms[kMaxPermutationSlots];
  for (int64_t token = begin; token < end; ++token) {
    size_t num_terms = 0;
    for (int64_t slot = 0; slot < args.rows.top_k(); ++slot) {
      const std::byte* row = args.rows.of(token, slot);
      if (row == nullptr) continue;
      terms[num_terms++] = {reinterpret_cast<const In*>(row),
                            WeightAt(args.gate_weights, token, slot)};
    }
    SumTerms(terms, num_terms, static_cast<size_t>(tokens.cols), tokens.row(token));
  }
}

template <typename In, class Rows>
void UnpermuteFrom(const UnpermuteArgs<Rows>& args, int64_t begin, int64_t end) {
  switch (args.tokens.dtype) {
    case DataType::kFloat32:
      return UnpermuteTyped<In, float>(args, begin, end);
    case DataType::kFloat16:
      return UnpermuteTyped<In, Float16>(args, begin, end);
    case DataType::kBFloat16:
      return UnpermuteTyped<In, BFloat16>(args, begin, end);
  }
}

template <class Rows>
void UnpermuteTokens(const UnpermuteArgs<Rows>& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DataType::kFloat32:
      return UnpermuteFrom<float>(args, begin, end);
    case DataType::kFloat16:
      return UnpermuteFrom<Float16>(args, begin, end);
    case DataType::kBFloat16:
      return UnpermuteFrom<BFloat16>(args, begin, end);
  }
}

void UnpermuteSorted(const UnpermuteArgs<SortedRows<const std::byte>>& args, int64_t begin,
                     int64_t end) {
  UnpermuteTokens(args, begin, end);
}

void UnpermuteAddressed(const UnpermuteArgs<AddressedRows<const std::byte>>& args, int64_t begin,
                        int64_t end) {
  UnpermuteTokens(args, begin, end);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {
namespace {

HWY_EXPORT(UnpermuteSorted);
HWY_EXPORT(UnpermuteAddressed);

/// Calls unpermute(begin, end) for parts of the tokens.
template <class Rows, typename Unpermute>
void split_tokens(const ThreadTeam& team, const UnpermuteArgs<Rows>& args,
                  const Unpermute& unpermute) {
  // Below this many bytes read, a second thread costs more than it saves.
  constexpr int64_t kMinBytesPerTask = 1 << 19;
  const int64_t num_tokens = args.tokens.rows;
  if (num_tokens == 0 || args.tokens.cols == 0) return;
  const int64_t token_bytes = args.rows.top_k() * args.tokens.cols * size_of(args.dtype);
  const int num_tasks =
      team.num_tasks(num_tokens, std::max<int64_t>(1, kMinBytesPerTask / token_bytes));
  team.run(num_tokens, num_tasks, 1,
           [&unpermute](int64_t begin, int64_t end, int) { unpermute(begin, end); });
}

}  // namespace

void unpermute_rows(const ThreadTeam& team,
                    const UnpermuteArgs<SortedRows<const std::byte>>& args) {
  split_tokens(team, args, [&args](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(UnpermuteSorted)(args, begin, end);
  });
}

void unpermute_rows_from(const ThreadTeam& team,
                         const UnpermuteArgs<AddressedRows<const std::byte>>& args) {
  split_tokens(team, args, [&args](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(UnpermuteAddressed)(args, begin, end);
  });
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
