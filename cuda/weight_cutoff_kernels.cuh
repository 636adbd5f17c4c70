// Dropping by gate weight: each expert's assignments are grouped in order with their weights' keys,
// then one block an expert finds what it keeps and gives that its rows.
#pragma once

#include "cuda/assignment_sort.cuh"
#include "cuda/weight_cutoff.cuh"

namespace switchyard::cuda {

inline constexpr int kCutThreads = 512;

/// One block gives one expert's assignments their rows.
__global__ void __launch_bounds__(kCutThreads, 1) cut_kernel(SortArgs args) {
  SWITCHYARD_SHARED(CutoffScratch, scratch);
  let_next_grid_start();
  wait_for_previous_grid();
  const uint32_t expert = blockIdx.x;
  const uint32_t* keys = args.group_keys + args.group_begins[expert];
  const int64_t* assignments = args.group_assignments + args.group_begins[expert];
  const int64_t num_keys = args.assigned[expert];
  const WeightCutoff cutoff = find_weight_cutoff(keys, num_keys, args.capacity, scratch);
  visit_keys(keys, num_keys, cutoff, scratch,
             [&](int64_t i, uint32_t, bool kept, int64_t position) {
               const int64_t assignment = assignments[i];
               const int64_t token = assignment / args.top_k;
               args.out.assignment_to_row.row(token)[assignment - token * args.top_k] =
                   kept ? give_row(args, LayoutInOutputs{args}, expert, position, assignment) : -1;
             });
}

/// What a token lost is known only when every expert has chosen.
__global__ void __launch_bounds__(kCutThreads) finish_cut_kernel(SortArgs args) {
  wait_for_previous_grid();
  fill_unused(args, LayoutInOutputs{args});
  add_fully_dropped(args, tokens_of_block(args));
}

}  // namespace switchyard::cuda
