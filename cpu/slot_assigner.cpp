// The front door of slot assignment: checks the placement once and every call's shapes, then hands
// over.
#include "switchyard/slot_assigner.h"

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/view_checks.h"
#include "switchyard/slot_assigner_backend.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_range;
using cpu::check_vector;
using cpu::kMaxTokens;

SlotAssigner::SlotAssigner(const ExpertPlacement& placement, int32_t top_k, Backend backend,
                           CpuThreads threads) {
  check_range("num_slots", placement.num_slots(), 1, kMaxPermutationExperts);
  check_range("top_k", top_k, 1, kMaxPermutationSlots);
  implementation_ = cpu::make_slot_assigner(placement, top_k, backend, threads);
}

SlotAssigner::~SlotAssigner() = default;
SlotAssigner::SlotAssigner(SlotAssigner&&) noexcept = default;
SlotAssigner& SlotAssigner::operator=(SlotAssigner&&) noexcept = default;

const ExpertPlacement& SlotAssigner::placement() const { return implementation_->placement; }

int32_t SlotAssigner::top_k() const { return implementation_->top_k; }

Backend SlotAssigner::backend() const { return implementation_->backend; }

int64_t SlotAssigner::workspace_bytes(int64_t max_tokens) const {
  check_range("max_tokens", max_tokens, 0, kMaxTokens);
  return implementation_->workspace_bytes(max_tokens);
}

void SlotAssigner::assign(MatrixView<const int32_t> expert_ids, int32_t rank,
                          MatrixView<int32_t> slot_ids, VectorView<int64_t> tokens_per_slot,
                          std::span<std::byte> workspace, StreamView stream) const {
  const int64_t num_tokens = expert_ids.rows;
  check_range("expert_ids rows", num_tokens, 0, kMaxTokens);
  check_matrix("expert_ids", expert_ids, num_tokens, top_k());
  check_range("rank", rank, 0, placement().num_ranks() - 1);
  check_matrix("slot_ids", slot_ids, num_tokens, top_k());
  check_vector("tokens_per_slot", tokens_per_slot, placement().num_slots());
  cpu::check_workspace(workspace, implementation_->workspace_bytes(num_tokens));
  implementation_->assign(expert_ids, rank, slot_ids, tokens_per_slot, workspace, stream);
}

}  // namespace switchyard
