// Expert affinity: which experts a layer has used lately, for prefetching and eviction.
#pragma once

#include <cstdint>
#include <memory>

#include "switchyard/backend.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxAffinityExperts = 4096;

/// How the scores of one layer's experts follow its batches.
///
/// Scores are 32-bit integers in units of max_score / (2^32 - 1), so neither the order of additions
/// nor rounding to subnormals can show. The decay is held to 2^-32 (every float from 2^-8 up is
/// exact) and the boost to the nearest unit, one above 0 to at least one unit.
struct ExpertAffinityConfig {
  int32_t num_experts = 0;        ///< ids are in [0, num_experts); 0 to 4096
  float decay = 0.99f;            ///< of a score from batch to batch, in [0, 1]; 1 loses nothing
  float activation_boost = 1.0f;  ///< an assignment, finite and 0 or more
  float max_score = 1.0f;         ///< finite and 0 or more

  bool operator==(const ExpertAffinityConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ExpertAffinityConfig& config);

/// A score and a number of activations for each expert of one layer, all 0 at first. At the end of
/// a batch every score becomes
///
///   min(max_score, decay * score + activation_boost * count)
///
/// with `count` the expert's assignments in the batch: one decay a batch, whatever its size. The
/// product with `decay` is rounded down to whole units, so at a decay below 1 a score without
/// assignments reaches 0. Counts and activations are int64 and stop at INT64_MAX.
///
/// The same batches give the same bits on every backend, however a batch is split over calls of
/// record() and over threads.
///
/// What may run at once, on kCpu and without locks: any number of record() and of readers, beside
/// each other and beside one update() or reset(); of update() and reset() only one at a time. What
/// record() finished before an update() began belongs to its batch; of what it does beside an
/// update(), each assignment belongs to that batch or to the next, and none is lost. A reader
/// beside an update() sees each score, and each number of activations, as before or as after it. On
/// kReference all calls are made one at a time. On kCuda these rules hold for the work in streams,
/// calls may come from any threads, and readers are for the host: the caller lets it wait for the
/// work they should see, by synchronize() for one.
///
/// Memory is allocated by the constructor and by nothing else: state in memory that host and
/// backend share, so that on kCuda a reader moves its pages to the host. No call synchronises, and
/// a CUDA graph can capture record(), update() and reset().
class ExpertAffinity {
 public:
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  /// @throws std::bad_alloc
  explicit ExpertAffinity(const ExpertAffinityConfig& config, Backend backend = Backend::kAuto);
  ~ExpertAffinity();
  ExpertAffinity(ExpertAffinity&&) noexcept;
  ExpertAffinity& operator=(ExpertAffinity&&) noexcept;

  [[nodiscard]] const ExpertAffinityConfig& config() const;
  /// The backend in use, never kAuto.
  [[nodiscard]] Backend backend() const;

  /// Adds assignments to those that the next update() counts.
  ///
  /// @param expert_ids  [num_tokens, slots] in the backend's memory, up to 2^48 by 4096; -1: no
  ///                    assignment. A Router's shared experts are left out by a view of its first
  ///                    top_k columns.
  /// @throws InvalidArgument  when the shape is refused, or on the host when an id is outside
  ///                          [-1, num_experts), naming token and slot: nothing is recorded then.
  ///                          kCuda counts such an id as -1, and refuses memory that kernels cannot
  ///                          follow, misaligned memory and another device's stream.
  /// @throws CudaError        when a launch fails, naming it, and ever after a sticky error.
  void record(MatrixView<const int32_t> expert_ids, StreamView stream = {});

  /// Ends a batch: decays every score once and boosts by what was recorded since the last time.
  /// @throws as record().
  void update(StreamView stream = {});

  /// The same with `tokens_per_expert` added to what was recorded. One launch on kCuda.
  ///
  /// @param tokens_per_expert  a Router's or a Permuter's: at least [num_experts] in the backend's
  ///                           memory, of which the first num_experts are read; each 0 or more.
  /// @throws InvalidArgument  as record(); on the host for a count below 0, naming the expert:
  ///                          nothing has changed then. kCuda counts one below 0 as 0.
  void update(VectorView<const int64_t> tokens_per_expert, StreamView stream = {});

  /// Makes everything 0 again, what was recorded too.
  /// @throws as record().
  void reset(StreamView stream = {});

  /// @param out  [num_experts], host memory.
  /// @throws InvalidArgument  for another size.
  void scores(VectorView<float> out) const;
  void activations(VectorView<int64_t> out) const;

  /// The scores in units, [num_experts] in the backend's memory, for kernels enqueued after an
  /// update(); affinity_score() (affinity_score.h) turns one into a float. They stay where they are
  /// for the object's life, moves included.
  [[nodiscard]] VectorView<const uint32_t> units() const;

  /// Writes the ids of the experts with the highest scores, best first, equal ones by the lower id.
  ///
  /// @param experts  as many as wanted, host memory.
  /// @return how many were written: min(experts.size, num_experts).
  int64_t top_k(VectorView<int32_t> experts) const;

  /// The candidate with the lowest score, of equal ones the lower id; -1 without candidates.
  ///
  /// @param candidates  ids of 0 or more, host memory; one that no expert here has, has score 0.
  /// @throws InvalidArgument  for an id below 0, naming it.
  [[nodiscard]] int32_t least(VectorView<const int32_t> candidates) const;

  /// (lower + equal / 2) / num_experts, with how many experts score lower than `expert` and how
  /// many the same, itself included; 0.5 without experts.
  ///
  /// @param expert  0 or more; one that no expert here has, has score 0.
  /// @throws InvalidArgument  for one below 0.
  [[nodiscard]] double percentile(int32_t expert) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard
