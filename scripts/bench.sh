#!/usr/bin/env bash
# Builds the benchmarks, runs them and writes bench/results/<CPU model>-<date>.md.
#
# Let the machine be idle. Arguments go to the Google Benchmark programs, as in
# `scripts/bench.sh --benchmark_filter=E256`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install_dependencies.sh
cmake --preset default >/dev/null
cmake --build --preset default --target routing_bench permutation_bench

bin=build/default/bin
model=$(LC_ALL=C lscpu | sed -n 's/^Model name: *//p' | head -n 1)
slug=$(tr -cs '[:alnum:]' '-' <<<"${model,,}" | sed 's/^-*//; s/-*$//')
commit=$(git rev-parse --short=12 HEAD)
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then commit+=", changed since"; fi
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:.*=//p' build/default/CMakeCache.txt)
mkdir -p bench/results
out=bench/results/$slug-$(date +%F).md
partial=$(mktemp)
trap 'rm -f "$partial"' EXIT

section() { # title command…
  echo
  echo "## $1"
  echo
  echo '```text'
  "${@:2}" 2>/dev/null
  echo '```'
}
{
  echo "# $model, $(date +%F)"
  echo
  echo "- commit: $commit"
  echo "- machine: $model, $(nproc) cores, $(uname -sr)"
  echo "- compiler: $("$compiler" --version | head -n 1), Release"
  # A table of its own, where the program offers one.
  if table=$("$bin/routing_bench" --table 2>/dev/null) && [[ $table == *'|'* ]]; then
    printf '\n## Routing, at a glance\n\n%s\n' "$table"
  fi
  section Routing "$bin/routing_bench" "$@"
  section Permutation "$bin/permutation_bench" "$@"
} >"$partial"
cp "$partial" "$out"
echo "Written: $PWD/$out"
