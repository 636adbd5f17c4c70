#include "bench/plain_routing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bench/plain_exp.h"

namespace switchyard::bench {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Best {
  float values[kMaxTopK];
  int32_t ids[kMaxTopK];
};

// Puts (value, id) in its place below place `last`; equal values keep their order.
inline void insert(Best& best, int last, float value, int32_t id) {
  int place = last;
  for (; place > 0 && best.values[place - 1] < value; --place) {
    best.values[place] = best.values[place - 1];
    best.ids[place] = best.ids[place - 1];
  }
  best.values[place] = value;
  best.ids[place] = id;
}

inline float rankable(float value) { return value == value ? value : kMinusInfinity; }

// kTopK of 0 reads the count at run time.
template <int kTopK, typename T>
void route_softmax(const RouterConfig& config, MatrixView<const T> logits, int32_t* expert_ids,
                   float* gate_weights) {
  const int top_k = kTopK != 0 ? kTopK : config.top_k;
  const int num_experts = config.num_experts;
  alignas(64) float widened[kMaxExperts];
  for (int64_t token = 0; token < logits.rows; ++token) {
    const float* row = widened;
    if constexpr (sizeof(T) == sizeof(float)) {
      row = logits.row(token);
    } else {
      for (int e = 0; e < num_experts; ++e) widened[e] = widen(logits.row(token)[e]);
    }
    Best best;
    for (int e = 0; e < top_k; ++e) insert(best, e, rankable(row[e]), e);
    float bar = best.values[top_k - 1];
    for (int e = top_k; e < num_experts; ++e) {
      if (row[e] > bar) {
        insert(best, top_k - 1, row[e], e);
        bar = best.values[top_k - 1];
      }
    }
    const float max = std::max(best.values[0], -3.0e38f);
    float sum = 0.0f;
    if (config.renormalize) {
      for (int j = 0; j < top_k; ++j) sum += best.values[j] = fast_exp(best.values[j] - max);
    } else {
      for (int e = 0; e < num_experts; ++e) sum += fast_exp(row[e] - max);
      for (int j = 0; j < top_k; ++j) best.values[j] = fast_exp(best.values[j] - max);
    }
    const float factor = config.routed_scaling_factor / sum;
    for (int j = 0; j < top_k; ++j) {
      gate_weights[token * top_k + j] = best.values[j] * factor;
      expert_ids[token * top_k + j] = best.ids[j];
    }
  }
}

inline float score_of(ScoreFunction function, float logit) {
  const float bounded = std::max(std::min(logit, 87.0f), -87.0f);
  switch (function) {
    case ScoreFunction::kSigmoid:
      return 1.0f / (1.0f + fast_exp(-bounded));
    case ScoreFunction::kSqrtSoftplus:
      return std::sqrt(std::log1p(fast_exp(bounded)));
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      break;
  }
  return logit;
}

template <typename T>
void route_scored(const RouterConfig& config, MatrixView<const T> logits, const float* bias,
                  int32_t* expert_ids, float* gate_weights) {
  const int num_experts = config.num_experts;
  const int top_k = config.top_k;
  const int num_groups = config.num_groups;
  const int group_size = num_experts / num_groups;
  alignas(64) float scores[kMaxExperts];
  alignas(64) float selection[kMaxExperts];
  for (int64_t token = 0; token < logits.rows; ++token) {
    const T* row = logits.row(token);
    if (config.score_function == ScoreFunction::kSigmoid) {
      for (int e = 0; e < num_experts; ++e) {
        scores[e] = score_of(ScoreFunction::kSigmoid, widen(row[e]));
      }
    } else {
      for (int e = 0; e < num_experts; ++e) {
        scores[e] = score_of(config.score_function, widen(row[e]));
      }
    }
    for (int e = 0; e < num_experts; ++e) {
      selection[e] = bias != nullptr ? scores[e] + bias[e] : scores[e];
    }
    bool kept[kMaxExperts] = {true};
    if (num_groups > 1) {
      float group_scores[kMaxExperts];
      for (int g = 0; g < num_groups; ++g) {
        float first = kMinusInfinity;
        float second = kMinusInfinity;
        for (int e = g * group_size; e < (g + 1) * group_size; ++e) {
          second = std::max(second, std::min(first, selection[e]));
          first = std::max(first, selection[e]);
        }
        group_scores[g] = config.group_score == GroupScore::kTop2Sum ? first + second : first;
      }
      kept[0] = false;
      for (int j = 0; j < config.top_groups; ++j) {
        int winner = -1;
        for (int g = 0; g < num_groups; ++g) {
          if (!kept[g] && (winner < 0 || group_scores[g] > group_scores[winner])) winner = g;
        }
        kept[winner] = true;
      }
    }
    Best best;
    for (int j = 0; j < top_k; ++j) {
      best.values[j] = kMinusInfinity;
      best.ids[j] = j;
    }
    float bar = kMinusInfinity;
    for (int g = 0; g < num_groups; ++g) {
      if (!kept[g]) continue;
      for (int e = g * group_size; e < (g + 1) * group_size; ++e) {
        if (selection[e] > bar) {
          insert(best, top_k - 1, selection[e], e);
          bar = best.values[top_k - 1];
        }
      }
    }
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) sum += best.values[j] = scores[best.ids[j]];
    const float factor = config.routed_scaling_factor / (config.renormalize ? sum : 1.0f);
    for (int j = 0; j < top_k; ++j) {
      gate_weights[token * top_k + j] = best.values[j] * factor;
      expert_ids[token * top_k + j] = best.ids[j];
    }
  }
}

template <typename T>
void route_typed(const RouterConfig& config, MatrixView<const T> logits, const float* bias,
                 int32_t* expert_ids, float* gate_weights) {
  const bool plain_softmax =
      config.score_function == ScoreFunction::kSoftmax && bias == nullptr && config.num_groups == 1;
  if (!plain_softmax) return route_scored(config, logits, bias, expert_ids, gate_weights);
  switch (config.top_k) {
    case 1:
      return route_softmax<1>(config, logits, expert_ids, gate_weights);
    case 2:
      return route_softmax<2>(config, logits, expert_ids, gate_weights);
    case 4:
      return route_softmax<4>(config, logits, expert_ids, gate_weights);
    case 8:
      return route_softmax<8>(config, logits, expert_ids, gate_weights);
    default:
      return route_softmax<0>(config, logits, expert_ids, gate_weights);
  }
}

}  // namespace

void plain_route(const RouterConfig& config, ConstTensorView logits, const float* bias,
                 int32_t* expert_ids, float* gate_weights) {
  switch (logits.dtype) {
    case DataType::kFloat32:
      return route_typed(config, logits.as<float>(), bias, expert_ids, gate_weights);
    case DataType::kFloat16:
      return route_typed(config, logits.as<Float16>(), bias, expert_ids, gate_weights);
    case DataType::kBFloat16:
      return route_typed(config, logits.as<BFloat16>(), bias, expert_ids, gate_weights);
  }
}

}  // namespace switchyard::bench
