// Small loops that the compiler vectorises: what a softmax denominator costs under the contract and
// free of it, and what reading memory costs alone.
#pragma once

#include <cstdint>

namespace switchyard::bench {

/// Sum of e^logit for logits <= 0 by the contract's exponential and tree; count a power of two up
/// to 1024.
float contract_denominator(const float* logits, int64_t count);

/// The same by a polynomial of degree 5 and in whatever order suits.
float free_denominator(const float* logits, int64_t count);

uint32_t xor_of_words(const void* words, int64_t count);

}  // namespace switchyard::bench
