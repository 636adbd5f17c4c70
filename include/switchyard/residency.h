// Which experts are in which memory.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "switchyard/backend.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxResidencyExperts = 4096;
inline constexpr int32_t kMaxResidencyLayers = 4096;

/// Slower ones first.
enum class MemoryTier : uint8_t { kStorage, kHost, kFast };

struct ResidencyConfig {
  static constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

  int32_t num_layers = 1;    ///< 1 to 4096
  int32_t num_experts = 0;   ///< of a layer, 1 to 4096
  int32_t fast_slots = 0;    ///< experts of each layer that fast memory takes, 0 to num_experts
  int64_t expert_bytes = 1;  ///< of one expert's weights, 1 or more
  int64_t fast_bytes = kUnlimited;  ///< of all layers together, 0 or more
  int64_t host_bytes = kUnlimited;  ///< the same of host memory; what does not fit is in storage

  bool operator==(const ResidencyConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ResidencyConfig& config);

/// The memory of every expert of every layer, within budgets that no call exceeds. At first no
/// expert is in fast memory, and host memory holds as many as fit, in the order of layers and ids.
///
/// Memory is allocated by the constructor alone. Calls are made one at a time. Every call throws
/// InvalidArgument for a layer or an expert out of range, naming it, and changes nothing then.
class Residency {
 public:
  /// @param backend  whose kernels read resident_experts(): that lies in memory which it shares
  ///                 with the host.
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  /// @throws std::bad_alloc
  explicit Residency(const ResidencyConfig& config, Backend backend = Backend::kCpu);
  ~Residency();
  Residency(Residency&&) noexcept;
  Residency& operator=(Residency&&) noexcept;

  [[nodiscard]] const ResidencyConfig& config() const;

  [[nodiscard]] MemoryTier tier(int32_t layer, int32_t expert) const;
  [[nodiscard]] bool is_resident(int32_t layer, int32_t expert) const;
  [[nodiscard]] bool is_pinned(int32_t layer, int32_t expert) const;

  /// [num_experts] of a layer, 1 in fast memory and 0 elsewhere, as a Router takes it. Stays where
  /// it is for the object's life, moves included.
  [[nodiscard]] VectorView<const uint8_t> resident_experts(int32_t layer) const;

  [[nodiscard]] int32_t num_resident(int32_t layer) const;
  [[nodiscard]] int32_t num_pinned(int32_t layer) const;
  [[nodiscard]] int32_t fast_slots(int32_t layer) const;
  [[nodiscard]] int64_t fast_bytes_used() const;
  [[nodiscard]] int64_t host_bytes_used() const;

  /// Writes a layer's experts in fast memory, ascending.
  /// @param experts  at least num_resident(layer).
  /// @return how many were written.
  /// @throws InvalidArgument  also when there are more than fit.
  int64_t list_resident(int32_t layer, VectorView<int32_t> experts) const;

  /// Moves an expert to another memory; where it is there already, nothing happens.
  /// @throws InvalidArgument  also when it does not fit there, or is pinned and would leave.
  void move(int32_t layer, int32_t expert, MemoryTier tier);
  /// move() to fast memory.
  void set_resident(int32_t layer, int32_t expert);
  /// Moves an expert out of fast memory: to the host where it fits there, else to storage.
  /// @throws InvalidArgument  also when it is pinned.
  void clear_resident(int32_t layer, int32_t expert);
  /// Makes `experts` those of the layer in fast memory, repeated ids counted once.
  /// @throws InvalidArgument  also when they do not fit or leave out a pinned one.
  void assign_resident(int32_t layer, VectorView<const int32_t> experts);

  /// A pinned expert stays in fast memory; pinning brings it there.
  /// @throws InvalidArgument  also when it does not fit there.
  void pin(int32_t layer, int32_t expert);
  void unpin(int32_t layer, int32_t expert);

  /// @throws InvalidArgument  also for fewer slots than experts that are pinned, or in fast memory.
  void set_fast_slots(int32_t layer, int32_t slots);

  class State;
  /// For the library's own policies, which keep the budgets by themselves.
  [[nodiscard]] State& state() { return *state_; }
  [[nodiscard]] const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
