// A stable counting sort. Tasks take consecutive tokens; each counts its own, and where it starts
// to place them follows from the counts of the tasks before it. So the order is that of the tokens
// however they are split.
#include "cpu/assignment_sort.h"

#include <algorithm>
#include <utility>

#include "cpu/expert_ids.h"
#include "cpu/weight_cutoff.h"
#include "cpu/workspace_parts.h"

namespace switchyard::cpu {
namespace {

// Below this many assignments a second thread costs more than it saves.
constexpr int64_t kMinAssignmentsPerTask = 16384;
// Counters that a task adds to the serial part, held against the assignments it takes.
constexpr int64_t kMinAssignmentsPerCounter = 16;

/// What makes an assignment lose its row.
enum class Drop { kNone, kByPosition, kByWeight };

bool drops_by_weight(const PermutationConfig& config) {
  return config.capacity.mode != ExpertCapacity::Mode::kUnlimited &&
         config.capacity.drop_policy == DropPolicy::kWeight;
}

int count_tasks(const PermutationConfig& config, const ThreadTeam& team, int64_t num_tokens) {
  const int64_t grain =
      std::max(kMinAssignmentsPerTask, kMinAssignmentsPerCounter * config.num_local());
  return team.num_tasks(num_tokens * config.top_k, grain);
}

struct TaskResult {
  int64_t fully_dropped_tokens = 0;
  bool saw_unknown_id = false;
};

/// Scratch of one sort. Tables of [tasks][experts] are indexed by task first.
struct Scratch {
  Scratch(WorkspaceParts& parts, const PermutationConfig& config, int64_t num_tokens, int num_tasks)
      : results(parts.take<TaskResult>(num_tasks)),
        next(parts.take<int64_t>(num_tasks * config.num_local())),
        other_counts(parts.take<int64_t>(num_tasks * config.num_local())),
        row_ends(parts.take<int64_t>(config.num_local())) {
    if (!drops_by_weight(config)) return;
    ties_left = parts.take<int64_t>(num_tasks * config.num_local());
    group_begins = parts.take<int64_t>(config.num_local());
    cutoff_keys = parts.take<uint32_t>(config.num_local());
    keys = parts.take<uint32_t>(num_tokens * config.top_k);
  }

  TaskResult* results;    // [tasks]
  int64_t* next;          // [tasks][experts] assignments counted, then where the next one goes
  int64_t* other_counts;  // [tasks][experts]
  int64_t* row_ends;      // [experts] end of the rows that hold assignments

  // To drop by weight: keys grouped by expert, dropped ones included.
  int64_t* ties_left = nullptr;     // [tasks][experts] equal to the cutoff and still kept
  int64_t* group_begins = nullptr;  // [experts]
  uint32_t* cutoff_keys = nullptr;  // [experts]
  uint32_t* keys = nullptr;         // [num_tokens * top_k]
};

class AssignmentSort {
 public:
  AssignmentSort(const PermutationConfig& config, const ThreadTeam& team,
                 MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                 const Permutation& out, std::span<std::byte> workspace)
      : config_(config),
        team_(team),
        expert_ids_(expert_ids),
        gate_weights_(gate_weights),
        out_(out),
        num_tokens_(expert_ids.rows),
        num_experts_(config.num_local()),
        capacity_(capacity_rows(config.capacity, num_tokens_, config.top_k, config.num_experts)),
        num_tasks_(count_tasks(config, team, num_tokens_)),
        parts_(workspace),
        scratch_(parts_, config, num_tokens_, num_tasks_) {}

  void run() {
    for_tokens([this](int64_t begin, int64_t end, int task) { count(begin, end, task); });
    for (int task = 0; task < num_tasks_; ++task) {
      if (scratch_.results[task].saw_unknown_id) check_expert_ids(expert_ids_, config_.num_experts);
    }
    PermutationTotals totals = lay_out();
    if (totals.dropped_assignments == 0) {
      place_all<Drop::kNone>(totals.num_rows);
    } else if (!drops_by_weight(config_)) {
      place_all<Drop::kByPosition>(totals.num_rows);
    } else {
      for_tokens([this](int64_t begin, int64_t end, int task) { group_keys(begin, end, task); });
      team_.run(num_experts_, num_tasks_, 1, [this](int64_t begin, int64_t end, int) {
        for (int64_t expert = begin; expert < end; ++expert) cut(expert);
      });
      place_all<Drop::kByWeight>(totals.num_rows);
    }
    for (int task = 0; task < num_tasks_; ++task) {
      totals.fully_dropped_tokens += scratch_.results[task].fully_dropped_tokens;
    }
    *out_.totals = totals;
  }

 private:
  template <typename Body>
  void for_tokens(const Body& body) const {
    team_.run(num_tokens_, num_tasks_, 1, body);
  }

  [[nodiscard]] int64_t whole_blocks(int64_t num_rows) const {
    return (num_rows + config_.block_rows - 1) / config_.block_rows;
  }

  /// Index of a local expert; num_experts_ or more for everything else.
  [[nodiscard]] uint32_t local(int32_t id) const {
    return static_cast<uint32_t>(id) - static_cast<uint32_t>(config_.first_local_expert);
  }

  [[nodiscard]] bool is_local(uint32_t expert) const {
    return expert < static_cast<uint32_t>(num_experts_);
  }

  [[nodiscard]] uint32_t key_at(int64_t token, int64_t slot) const {
    if (gate_weights_.dtype == DataType::kFloat32) {
      return weight_key(gate_weights_.as<float>().row(token)[slot]);
    }
    return weight_key(widen(gate_weights_.as<BFloat16>().row(token)[slot]));
  }

  /// In two tables, so that a counter is seldom wanted again before it is written.
  void count(int64_t begin, int64_t end, int task) const {
    int64_t* const counts = scratch_.next + task * num_experts_;
    int64_t* const others = scratch_.other_counts + task * num_experts_;
    std::fill_n(counts, num_experts_, 0);
    std::fill_n(others, num_experts_, 0);
    const auto first_local = static_cast<uint32_t>(config_.first_local_expert);
    const auto num_local = static_cast<uint32_t>(num_experts_);
    uint32_t largest = 0;  // of what is one more than an id, so that -1 comes before all
    const auto add = [&](int64_t* table, int32_t id) {
      const auto bits = static_cast<uint32_t>(id);
      largest = std::max(largest, bits + 1);
      if (bits - first_local < num_local) ++table[bits - first_local];
    };
    for_runs(begin, end, [&](const int32_t* ids, int64_t count, int64_t) {
      for (int64_t i = 0; i + 1 < count; i += 2) {
        add(counts, ids[i]);
        add(others, ids[i + 1]);
      }
      if (count % 2 != 0) add(counts, ids[count - 1]);
    });
    for (int64_t expert = 0; expert < num_experts_; ++expert) counts[expert] += others[expert];
    scratch_.results[task] = {0, largest > static_cast<uint32_t>(config_.num_experts)};
  }

  /// Gives every expert its rows, and every task the row where it starts in them.
  PermutationTotals lay_out() const {
    PermutationTotals totals;
    for (int64_t expert = 0; expert < num_experts_; ++expert) {
      const int64_t begin = totals.num_rows;
      int64_t end = begin;
      for (int task = 0; task < num_tasks_; ++task) {
        int64_t& next = scratch_.next[task * num_experts_ + expert];
        end += std::exchange(next, end);
      }
      const int64_t assigned = end - begin;
      const int64_t kept = std::min(assigned, capacity_);
      if (scratch_.group_begins != nullptr) {
        scratch_.group_begins[expert] = totals.kept_assignments + totals.dropped_assignments;
      }
      totals.kept_assignments += kept;
      totals.dropped_assignments += assigned - kept;
      out_.tokens_per_expert[expert] = kept;
      out_.expert_offsets[expert] = begin;
      scratch_.row_ends[expert] = begin + kept;
      if (kept > 0) totals.num_rows += whole_blocks(kept) * config_.block_rows;
    }
    out_.expert_offsets[num_experts_] = totals.num_rows;
    return totals;
  }

  /// Place among the grouped keys of what would have `row` if nothing were dropped.
  [[nodiscard]] int64_t key_index(int64_t expert, int64_t row) const {
    return scratch_.group_begins[expert] + row - out_.expert_offsets[expert];
  }

  void group_keys(int64_t begin, int64_t end, int task) const {
    int64_t* next = scratch_.next + task * num_experts_;
    for (int64_t token = begin; token < end; ++token) {
      const int32_t* ids = expert_ids_.row(token);
      for (int32_t slot = 0; slot < config_.top_k; ++slot) {
        const uint32_t expert = local(ids[slot]);
        if (is_local(expert))
          scratch_.keys[key_index(expert, next[expert]++)] = key_at(token, slot);
      }
    }
  }

  /// Finds what one expert keeps and, from that, the first row of each task.
  void cut(int64_t expert) const {
    int64_t begin = scratch_.group_begins[expert];
    const int64_t last = (num_tasks_ - 1) * num_experts_ + expert;
    const int64_t assigned = key_index(expert, scratch_.next[last]) - begin;
    const auto cutoff = find_weight_cutoff(scratch_.keys + begin, assigned, capacity_);
    scratch_.cutoff_keys[expert] = cutoff.key;
    int64_t row = out_.expert_offsets[expert];
    int64_t ties = cutoff.ties;
    for (int task = 0; task < num_tasks_; ++task) {
      const int64_t index = task * num_experts_ + expert;
      // Grouping left it behind the task's last key.
      const int64_t end = key_index(expert, scratch_.next[index]);
      int64_t above = 0;
      int64_t equal = 0;
      for (int64_t i = begin; i < end; ++i) {
        above += scratch_.keys[i] > cutoff.key ? 1 : 0;
        equal += scratch_.keys[i] == cutoff.key ? 1 : 0;
      }
      const int64_t kept_ties = std::min(equal, ties);
      scratch_.next[index] = row;
      scratch_.ties_left[index] = kept_ties;
      row += above + kept_ties;
      ties -= kept_ties;
      begin = end;
    }
  }

  template <Drop kDrop>
  void place_all(int64_t rows_in_use) const {
    for_tokens([this, rows_in_use](int64_t begin, int64_t end, int task) {
      place<kDrop>(begin, end, task);
      fill_blocks(rows_in_use, task);
    });
  }

  /// Calls body(ids, count, first assignment) for runs of assignments that lie side by side.
  template <typename Body>
  void for_runs(int64_t begin, int64_t end, const Body& body) const {
    const int64_t top_k = config_.top_k;
    const bool is_dense =
        expert_ids_.row_stride == top_k && out_.assignment_to_row.row_stride == top_k;
    const int64_t step = is_dense ? std::max<int64_t>(1, end - begin) : 1;
    for (int64_t token = begin; token < end; token += step) {
      body(expert_ids_.row(token), step * top_k, token * top_k);
    }
  }

  /// Where nothing is dropped. What the loop uses is in locals: its stores might change anything
  /// else, which would be read anew for each assignment.
  void place_everything(int64_t begin, int64_t end, int task) const {
    int64_t* const next = scratch_.next + task * num_experts_;
    int64_t* const row_to_assignment = out_.row_to_assignment.data;
    const auto first_local = static_cast<uint32_t>(config_.first_local_expert);
    const auto num_local = static_cast<uint32_t>(num_experts_);
    for_runs(begin, end, [=, this](const int32_t* ids, int64_t count, int64_t first) {
      int64_t* const rows = out_.assignment_to_row.row(first / config_.top_k);
      for (int64_t i = 0; i < count; ++i) {
        const uint32_t expert = static_cast<uint32_t>(ids[i]) - first_local;
        if (expert < num_local) {
          const int64_t row = next[expert]++;
          rows[i] = row;
          row_to_assignment[row] = first + i;
        } else {
          rows[i] = -1;
        }
      }
    });
    scratch_.results[task].fully_dropped_tokens = 0;
  }

  template <Drop kDrop>
  void place(int64_t begin, int64_t end, int task) const {
    if constexpr (kDrop == Drop::kNone) return place_everything(begin, end, task);
    int64_t* next = scratch_.next + task * num_experts_;
    int64_t fully_dropped = 0;
    for (int64_t token = begin; token < end; ++token) {
      const int32_t* ids = expert_ids_.row(token);
      int64_t* rows = out_.assignment_to_row.row(token);
      bool any_local = false;
      bool any_kept = false;
      for (int32_t slot = 0; slot < config_.top_k; ++slot) {
        const uint32_t expert = local(ids[slot]);
        rows[slot] = -1;
        if (!is_local(expert)) continue;
        any_local = true;
        if constexpr (kDrop == Drop::kByPosition) {
          if (next[expert] >= scratch_.row_ends[expert]) continue;
        }
        if constexpr (kDrop == Drop::kByWeight) {
          const uint32_t key = key_at(token, slot);
          if (key < scratch_.cutoff_keys[expert]) continue;
          int64_t& ties_left = scratch_.ties_left[task * num_experts_ + expert];
          if (key == scratch_.cutoff_keys[expert] && ties_left-- <= 0) continue;
        }
        any_kept = true;
        const int64_t row = next[expert]++;
        rows[slot] = row;
        out_.row_to_assignment[row] = token * config_.top_k + slot;
      }
      if constexpr (kDrop != Drop::kNone) fully_dropped += any_local && !any_kept ? 1 : 0;
    }
    scratch_.results[task].fully_dropped_tokens = fully_dropped;
  }

  /// A task's share of what depends on the offsets alone: block experts, and -1 in rows without an
  /// assignment.
  void fill_blocks(int64_t rows_in_use, int task) const {
    const int64_t block_rows = config_.block_rows;
    const int64_t num_rows = out_.row_to_assignment.size;
    const int64_t begin = ThreadTeam::first_item(num_rows, task, num_tasks_, block_rows);
    const int64_t end = ThreadTeam::first_item(num_rows, task + 1, num_tasks_, block_rows);
    const int64_t* offsets = out_.expert_offsets.data;
    const int64_t* above = std::upper_bound(offsets, offsets + num_experts_ + 1, begin);
    for (int64_t expert = above - offsets - 1; expert < num_experts_; ++expert) {
      if (offsets[expert] >= end) break;
      if (offsets[expert] == offsets[expert + 1]) continue;  // a batch of few tokens has many
      const int64_t first = std::max(begin, offsets[expert]);
      const int64_t last = std::min(end, offsets[expert + 1]);
      std::fill(out_.block_experts.data + first / block_rows,
                out_.block_experts.data + last / block_rows, static_cast<int32_t>(expert));
      for (int64_t row = std::max(first, scratch_.row_ends[expert]); row < last; ++row) {
        out_.row_to_assignment[row] = -1;
      }
    }
    const int64_t unused = std::max(begin, rows_in_use);
    if (unused >= end) return;
    std::fill(out_.block_experts.data + unused / block_rows,
              out_.block_experts.data + end / block_rows, -1);
    std::fill(out_.row_to_assignment.data + unused, out_.row_to_assignment.data + end, -1);
  }

  const PermutationConfig& config_;
  const ThreadTeam& team_;
  const MatrixView<const int32_t> expert_ids_;
  const ConstTensorView gate_weights_;
  const Permutation& out_;
  const int64_t num_tokens_;
  const int64_t num_experts_;
  const int64_t capacity_;
  const int num_tasks_;
  WorkspaceParts parts_;
  const Scratch scratch_;
};

}  // namespace

int64_t assignment_sort_workspace(const PermutationConfig& config, const ThreadTeam& team,
                                  int64_t max_tokens) {
  WorkspaceParts parts;
  const Scratch measured(parts, config, max_tokens, count_tasks(config, team, max_tokens));
  return parts.bytes();
}

void sort_assignments(const PermutationConfig& config, const ThreadTeam& team,
                      MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                      const Permutation& out, std::span<std::byte> workspace) {
  AssignmentSort(config, team, expert_ids, gate_weights, out, workspace).run();
}

}  // namespace switchyard::cpu
