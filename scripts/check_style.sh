#!/usr/bin/env bash
# Checks format, scripts and, by clang-tidy, the code.
#
#   scripts/check_style.sh          clang-tidy on what differs from the previous commit
#   scripts/check_style.sh --all    clang-tidy on everything
#   scripts/check_style.sh --most   clang-tidy on what differs and on everything but tests and benchmarks
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
  --changed | --all | --most | --fast) format --dry-run -Werror ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
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
# Sources that differ from the previous commit, and those that include a header that does.
changed_sources() {
  local path
  git diff --name-only --diff-filter=d HEAD~1 -- '*.cpp' '*.h' | while read -r path; do
    case $path in
      *.cpp) echo "$path" ;;
      *) git grep -l -F "#include \"${path#include/}\"" -- '*.cpp' || true ;;
    esac
  done | sort -u | comm -12 - <(sources | sort)
}

case $mode in
  --all) list=$(sources) ;;
  --most) list=$({ sources | grep -v -e '^tests/' -e '^bench/'; changed_sources; } | sort -u) ;;
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
