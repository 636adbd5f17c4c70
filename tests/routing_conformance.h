// What every conformance test of routing asks: is each backend the reference, bit for bit?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/random_stream.h"
#include "tests/routing_case.h"

namespace switchyard::test {

/// The shapes at which vector code changes its mind: around powers of two, lanes and thresholds.
inline constexpr int32_t kExpertCounts[] = {
    1,   2,   3,   4,   5,   7,   8,   9,   12,   15,   16,   17,   31,  32,  33,
    48,  60,  63,  64,  65,  72,  96,  100, 127,  128,  129,  160,  200, 255, 256,
    257, 288, 384, 511, 512, 513, 640, 896, 1000, 1024, 1500, 2047, 2048};
inline constexpr int32_t kTopKs[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 22, 32, 33, 64};
inline constexpr int64_t kTokenCounts[] = {0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 64, 100};
inline constexpr ScoreFunction kAllScores[] = {ScoreFunction::kSoftmax, ScoreFunction::kSigmoid,
                                               ScoreFunction::kSqrtSoftplus,
                                               ScoreFunction::kIdentity};
inline constexpr GroupScore kAllGroupScores[] = {GroupScore::kMax, GroupScore::kTop2Sum,
                                                 GroupScore::kTopKSum};

/// The largest of kTokenCounts up to a random one that keeps num_tokens * num_experts below `area`.
int64_t pick_num_tokens(RandomStream& random, int32_t num_experts, int64_t area);

/// Everything but the shape and the score function drawn at random. Groups where they divide.
void randomize(RandomStream& random, RoutingCase& routing_case);

/// Routes on the reference and on every variant of the CPU backend; the first difference in words
/// together with the variant and the case, empty where all agree.
std::string disagreement(const RoutingCase& routing_case);

}  // namespace switchyard::test
