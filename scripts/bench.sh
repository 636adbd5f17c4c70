#!/usr/bin/env bash
# Builds the benchmarks, runs them and writes bench/results/<CPU model>-<date>.md.
#
# Let the machine be idle. Arguments go to the permutation's benchmark, as in
# `scripts/bench.sh --benchmark_filter=E:256`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install_dependencies.sh
cmake --preset default >/dev/null
cmake --build --preset default --target routing_bench permutation_bench affinity_bench \
  stats_bench offload_bench plan_bench placement_bench alltoall_perf moe_perf

bin=build/default/bin
model=$(LC_ALL=C lscpu | sed -n 's/^Model name: *//p' | head -n 1)
slug=$(tr -cs '[:alnum:]' '-' <<<"${model,,}" | sed 's/^-*//; s/-*$//')
commit=$(git rev-parse --short=12 HEAD)
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then commit+=", changed since"; fi
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:.*=//p' build/default/CMakeCache.txt)
# A command and what it prints.
show() {
  echo "\$ ${*#build/default/}"
  "$@" 2>/dev/null
  echo
}
mkdir -p bench/results
out=bench/results/$slug-$(date +%F).md
partial=$(mktemp)
trap 'rm -f "$partial"' EXIT

{
  echo "# $model, $(date +%F)"
  echo
  echo "- commit: $commit"
  echo "- machine: $model, $(nproc) cores, $(uname -sr), load $(cut -d ' ' -f 1 /proc/loadavg) before"
  echo "- compiler: $("$compiler" --version | head -n 1), Release"
  echo "- command: scripts/bench.sh"
  printf '\n## Routing\n\n'
  "$bin/routing_bench" --table
  printf '\n## Routing, beside PyTorch\n\n'
  if [[ -x /usr/bin/python3 ]]; then /usr/bin/python3 bench/torch_routing.py "$bin/routing_bench"; fi
  printf '\n## Permutation\n\n```text\n'
  "$bin/permutation_bench" --benchmark_min_time=0.05 "$@" 2>/dev/null
  echo '```'
  printf '\n## Affinity\n\n```text\n'
  "$bin/affinity_bench" --benchmark_min_time=0.05 2>/dev/null
  echo '```'
  printf '\n## Statistics\n\n```text\n'
  "$bin/stats_bench" --benchmark_min_time=0.05 2>/dev/null
  echo '```'
  printf '\n## Memory-aware decisions\n\n'
  "$bin/offload_bench" --table
  printf '\n## Placement\n\n'
  "$bin/placement_bench" --table
  printf '\n## Exchange: plans\n\n```text\n'
  "$bin/plan_bench" 2>/dev/null
  echo '```'
  printf '\n## Exchange: dispatch and combine\n\n```text\n'
  for ranks in 1 2; do
    show "$bin/moe_perf" -t "$ranks" -n 21 --model olmoe --hidden 2048 --tokens 64,512,4096
  done
  show "$bin/moe_perf" -t 2 -n 21 --trace examples/traces/english.safetensors --hidden 2048 --tokens 1024
  if [[ -x $bin/mpi_communicator_test ]]; then
    mpirun=(mpirun --oversubscribe --allow-run-as-root -n 2)
    show "${mpirun[@]}" "$bin/moe_perf" -n 21 --model olmoe --hidden 2048 --tokens 64,512,4096
    show "${mpirun[@]}" "$bin/moe_perf" -n 21 --model olmoe --hidden 2048 --tokens 64,512,4096 \
      --private-rows
    show "${mpirun[@]}" "$bin/moe_perf" -n 21 --model olmoe --hidden 2048 --tokens 64,512,4096 \
      --private-rows --deduplicate
    show "${mpirun[@]}" "$bin/alltoall_perf" -b 64K -e 64M -f 4 --raw
  fi
  echo '```'
} >"$partial"
cp "$partial" "$out"
echo "Written: $PWD/$out"
