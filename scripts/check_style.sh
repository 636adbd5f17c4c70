#!/usr/bin/env bash
# Checks format, scripts and, by clang-tidy, the code.
#
#   scripts/check_style.sh          clang-tidy on what differs from main, on main from the previous commit
#   scripts/check_style.sh --all    clang-tidy on everything
#   scripts/check_style.sh --some   clang-tidy on what differs and on a quarter of the rest, another one
#                                   with every commit
#   scripts/check_style.sh --fast   no clang-tidy
#   scripts/check_style.sh --fix    formats in place and checks nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1---changed}

format() { git ls-files -z -- '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format "$@"; }
case $mode in
  --fix)
    format -i
    exit 0
    ;;
  --changed | --all | --some | --fast) format --dry-run -Werror ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
if command -v shellcheck >/dev/null; then
  shellcheck scripts/*.sh .ci/run
fi
if [[ $mode == --fast ]]; then exit 0; fi

sources() {
  git ls-files -- 'cpu/*.cpp' 'cuda/*.cpp' 'nccl/*.cpp' 'stats/*.cpp' 'tools/*.cpp' 'tests/*.cpp' \
    'bench/*.cpp' 'examples/*.cpp' ':!tests/fuzz/*'
}
# Sources that differ, and those that include a header that does.
changed_sources() {
  local base path
  base=$(git merge-base HEAD main 2>/dev/null || true)
  if [[ -z $base || $base == $(git rev-parse HEAD) ]]; then base=HEAD~1; fi
  git diff --name-only --diff-filter=d "$base" -- '*.cpp' '*.h' | while read -r path; do
    case $path in
      *.cpp) echo "$path" ;;
      *) git grep -l -F "#include \"${path#include/}\"" -- '*.cpp' || true ;;
    esac
  done | sort -u | comm -12 - <(sources | sort)
}

# The commit's name says which.
a_quarter() {
  local which
  which=$((16#$(git rev-parse HEAD | cut -c 1-7) % 4))
  awk -v which="$which" 'NR % 4 == which'
}

case $mode in
  --all) list=$(sources) ;;
  --some) list=$({ sources | a_quarter; changed_sources; } | sort -u) ;;
  *) list=$(changed_sources) ;;
esac
if [[ -z $list ]]; then exit 0; fi
# The commands of a clang++ build: clang-tidy stumbles over GCC's flags and over its omp.h.
cmake --preset clang >/dev/null
# run-clang-tidy takes regular expressions on absolute paths.
mapfile -t patterns < <(sed "s|^|^$PWD/|; s|[.+]|\\\\&|g; s|\$|\$|" <<<"$list")
log=build/clang/tidy.log
if ! run-clang-tidy -quiet -j 2 -p build/clang "${patterns[@]}" >"$log" 2>&1; then
  grep -v -e '^clang-tidy' -e 'warnings generated' "$log" >&2
  exit 1
fi
