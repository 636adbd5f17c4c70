// The memory of every expert, checked call by call.
#include "switchyard/residency.h"

#include "cpu/backend_registry.h"
#include "cpu/residency_state.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_range;
using cpu::check_vector;
using cpu::refuse;

namespace {

constexpr int64_t kMaskAlignment = 64;

void check_budget(const char* name, int64_t value) {
  if (value < 0) refuse(name, " is ", value, ", must be 0 or more");
}

void check_layer(const Residency::State& state, int32_t layer) {
  check_range("layer", layer, 0, state.config.num_layers - 1);
}

void check_expert(const Residency::State& state, int32_t layer, int32_t expert) {
  check_layer(state, layer);
  check_range("expert", expert, 0, state.config.num_experts - 1);
}

/// Refuses `more` experts of a layer beside those in fast memory.
void check_fits(const Residency::State& state, int32_t layer, int64_t more) {
  const auto index = static_cast<size_t>(layer);
  const int64_t wanted = state.num_resident[index] + more;
  if (wanted > state.fast_slots[index]) {
    refuse("layer ", layer, " would have ", wanted, " experts in fast memory, must have at most ",
           state.fast_slots[index]);
  }
  if (state.fast_used + more > state.fast_capacity) {
    refuse("fast memory would hold ", state.fast_used + more, " experts, must hold at most ",
           state.fast_capacity, ": fast_bytes is ", state.config.fast_bytes);
  }
}

void check_not_pinned(const Residency::State& state, int32_t layer, int32_t expert) {
  if (state.is_pinned(layer, expert)) {
    refuse("expert ", expert, " of layer ", layer, " is pinned, must not leave fast memory");
  }
}

}  // namespace

void validate(const ResidencyConfig& config) {
  check_range("num_layers", config.num_layers, 1, kMaxResidencyLayers);
  check_range("num_experts", config.num_experts, 1, kMaxResidencyExperts);
  check_range("fast_slots", config.fast_slots, 0, config.num_experts);
  if (config.expert_bytes < 1) {
    refuse("expert_bytes is ", config.expert_bytes, ", must be 1 or more");
  }
  check_budget("fast_bytes", config.fast_bytes);
  check_budget("host_bytes", config.host_bytes);
}

Residency::State::State(const ResidencyConfig& residency_config, Backend backend)
    : config(residency_config),
      mask_stride((config.num_experts + kMaskAlignment - 1) / kMaskAlignment * kMaskAlignment),
      words(mask_stride / 64),
      fast_capacity(config.fast_bytes / config.expert_bytes),
      host_capacity(config.host_bytes / config.expert_bytes),
      mask(config.num_layers * mask_stride, backend),
      fast_slots(static_cast<size_t>(config.num_layers), config.fast_slots),
      num_resident(fast_slots.size()),
      num_pinned(fast_slots.size()),
      pinned_(static_cast<size_t>(config.num_layers * words)),
      on_host_(pinned_.size()) {
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int32_t expert = 0; expert < config.num_experts; ++expert) {
      if (host_used < host_capacity) enter_host(layer, expert);
    }
  }
}

Residency::Residency(const ResidencyConfig& config, Backend backend) {
  validate(config);
  state_ = std::make_unique<State>(config, cpu::resolve_backend(backend));
}

Residency::~Residency() = default;
Residency::Residency(Residency&&) noexcept = default;
Residency& Residency::operator=(Residency&&) noexcept = default;

const ResidencyConfig& Residency::config() const { return state_->config; }

MemoryTier Residency::tier(int32_t layer, int32_t expert) const {
  if (is_resident(layer, expert)) return MemoryTier::kFast;
  return state_->is_on_host(layer, expert) ? MemoryTier::kHost : MemoryTier::kStorage;
}

bool Residency::is_resident(int32_t layer, int32_t expert) const {
  check_expert(*state_, layer, expert);
  return state_->is_resident(layer, expert);
}

bool Residency::is_pinned(int32_t layer, int32_t expert) const {
  check_expert(*state_, layer, expert);
  return state_->is_pinned(layer, expert);
}

VectorView<const uint8_t> Residency::resident_experts(int32_t layer) const {
  check_layer(*state_, layer);
  const Buffer<uint8_t>& mask = state_->mask;
  return {mask.data() + layer * state_->mask_stride, state_->config.num_experts};
}

int32_t Residency::num_resident(int32_t layer) const {
  check_layer(*state_, layer);
  return state_->num_resident[static_cast<size_t>(layer)];
}

int32_t Residency::num_pinned(int32_t layer) const {
  check_layer(*state_, layer);
  return state_->num_pinned[static_cast<size_t>(layer)];
}

int32_t Residency::fast_slots(int32_t layer) const {
  check_layer(*state_, layer);
  return state_->fast_slots[static_cast<size_t>(layer)];
}

int64_t Residency::fast_bytes_used() const {
  return state_->fast_used * state_->config.expert_bytes;
}

int64_t Residency::host_bytes_used() const {
  return state_->host_used * state_->config.expert_bytes;
}

int64_t Residency::list_resident(int32_t layer, VectorView<int32_t> experts) const {
  const VectorView<const uint8_t> mask = resident_experts(layer);
  const int32_t count = num_resident(layer);
  if (experts.size < count) {
    refuse("experts has ", experts.size, " elements, must have at least ", count);
  }
  check_vector("experts", experts, experts.size);
  int64_t written = 0;
  for (int64_t expert = 0; expert < mask.size && written < count; ++expert) {
    if (mask[expert] != 0) experts[written++] = static_cast<int32_t>(expert);
  }
  return written;
}

void Residency::move(int32_t layer, int32_t expert, MemoryTier to) {
  const MemoryTier from = tier(layer, expert);
  if (from == to) return;
  if (to == MemoryTier::kFast) {
    check_fits(*state_, layer, 1);
    return state_->enter(layer, expert);
  }
  check_not_pinned(*state_, layer, expert);
  if (to == MemoryTier::kHost && state_->host_used >= state_->host_capacity) {
    refuse("host memory would hold ", state_->host_used + 1, " experts, must hold at most ",
           state_->host_capacity, ": host_bytes is ", state_->config.host_bytes);
  }
  if (from == MemoryTier::kFast) {
    state_->leave(layer, expert);
    if (to == MemoryTier::kStorage) state_->leave_host(layer, expert);
  } else if (to == MemoryTier::kHost) {
    state_->enter_host(layer, expert);
  } else {
    state_->leave_host(layer, expert);
  }
}

void Residency::set_resident(int32_t layer, int32_t expert) {
  move(layer, expert, MemoryTier::kFast);
}

void Residency::clear_resident(int32_t layer, int32_t expert) {
  if (!is_resident(layer, expert)) return;
  check_not_pinned(*state_, layer, expert);
  state_->leave(layer, expert);
}

void Residency::assign_resident(int32_t layer, VectorView<const int32_t> experts) {
  check_layer(*state_, layer);
  check_vector("experts", experts, std::max<int64_t>(experts.size, 0));
  uint64_t wanted[kMaxResidencyExperts / 64] = {};
  int64_t num_wanted = 0;
  int64_t num_pinned_wanted = 0;
  for (int64_t i = 0; i < experts.size; ++i) {
    const int32_t expert = experts[i];
    check_expert(*state_, layer, expert);
    const uint64_t bit = uint64_t{1} << (expert % 64);
    if ((wanted[expert / 64] & bit) != 0) continue;
    wanted[expert / 64] |= bit;
    ++num_wanted;
    num_pinned_wanted += static_cast<int64_t>(state_->is_pinned(layer, expert));
  }
  if (num_pinned_wanted < num_pinned(layer)) {
    refuse("experts of layer ", layer, " hold ", num_pinned_wanted, " pinned ones, must hold all ",
           num_pinned(layer));
  }
  check_fits(*state_, layer, num_wanted - num_resident(layer));
  // Those that leave first, so that the budgets hold all the time.
  for (const bool enters : {false, true}) {
    for (int32_t expert = 0; expert < state_->config.num_experts; ++expert) {
      const bool is_wanted = (wanted[expert / 64] >> (expert % 64) & 1) != 0;
      if (is_wanted == state_->is_resident(layer, expert) || is_wanted != enters) continue;
      if (enters) {
        state_->enter(layer, expert);
      } else {
        state_->leave(layer, expert);
      }
    }
  }
}

void Residency::pin(int32_t layer, int32_t expert) {
  set_resident(layer, expert);
  state_->set_pinned(layer, expert, true);
}

void Residency::unpin(int32_t layer, int32_t expert) {
  check_expert(*state_, layer, expert);
  state_->set_pinned(layer, expert, false);
}

void Residency::set_fast_slots(int32_t layer, int32_t slots) {
  check_layer(*state_, layer);
  check_range("fast_slots", slots, 0, state_->config.num_experts);
  if (slots < num_pinned(layer)) {
    refuse("fast_slots of layer ", layer, " is ", slots, ", must be at least the ",
           num_pinned(layer), " that are pinned");
  }
  if (slots < num_resident(layer)) {
    refuse("fast_slots of layer ", layer, " is ", slots, ", must be at least the ",
           num_resident(layer), " in use");
  }
  state_->fast_slots[static_cast<size_t>(layer)] = slots;
}

}  // namespace switchyard
