#!/usr/bin/env bash
# Builds for this machine's GPU, runs the tests on it, bare and under compute-sanitizer, times it,
# and writes bench/results/<GPU>-<date>.md.
#
# usage: gpu_check.sh [--quick] [--dependencies FOLDER] [--commit HASH] [--results FOLDER]
#   --quick         one sanitizer and a few shapes
#   --dependencies  where scripts/unpack_dependencies.sh put what is not installed
#   --commit        what to call this tree where git does not know it
#   --results       where to write instead
#
# Needs nothing from a network; says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=0
dependencies=
commit=
results=bench/results
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --dependencies) dependencies=$(cd "$2" && pwd) && shift ;;
    --commit) commit=$2 && shift ;;
    --results) results=$2 && shift ;;
    *)
      sed -n '5,9s/^# //p' "${BASH_SOURCE[0]}" >&2
      exit 2
      ;;
  esac
  shift
done

missing=()
for tool in nvidia-smi nvcc cmake c++; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
for header in hwy/highway.h spdlog/spdlog.h fmt/core.h CLI/CLI.hpp nlohmann/json.hpp gtest/gtest.h \
  benchmark/benchmark.h; do
  c++ -E -x c++ -std=c++20 ${dependencies:+-isystem "$dependencies/usr/include"} - \
    <<<"#if !__has_include(<$header>)
#error
#endif" >/dev/null 2>&1 || missing+=("$header")
done
if ((${#missing[@]})); then
  echo "gpu_check.sh: missing here: ${missing[*]}" >&2
  echo "scripts/unpack_dependencies.sh unpacks the headers and libraries on a Debian machine." >&2
  exit 1
fi

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
if [[ -z $commit ]]; then
  commit=$(git rev-parse --short=12 HEAD)
  if [[ -n $(git status --porcelain --untracked-files=no) ]]; then commit+=", changed since"; fi
fi

build=build/gpu
bin=$build/bin
if [[ -n $dependencies ]]; then
  libraries=$(echo "$dependencies"/usr/lib/*-linux-gnu)
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DSWITCHYARD_WERROR=OFF \
  ${dependencies:+-DCMAKE_PREFIX_PATH="$dependencies/usr"}
programs=(gpu_bench switchyard alltoall_perf moe_perf)
cuda_tests=$(sed -n 's/^ *cuda_suite(\([a-z_]*\).*/\1/p' tests/CMakeLists.txt)
if ! grep -q '^SWITCHYARD_NCCL_LIBRARY:.*=/' "$build/CMakeCache.txt"; then
  cuda_tests=${cuda_tests/cuda_nccl_test/}
fi
# shellcheck disable=SC2086  # a list of words
cmake --build "$build" --parallel "$(nproc)" --target $cuda_tests "${programs[@]}"

mkdir -p "$results"
slug=$(tr -cs '[:alnum:]' '-' <<<"${gpu,,}" | sed 's/^-*//; s/-*$//')
out=$results/$slug-$(date +%F).md
failed=0

# A stage's summary goes into the file, all that it says onto the terminal.
check() { # title command…
  local title=$1 log status=0 passed
  shift
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=$?
  passed=$(grep -cE '^\[ +OK \]' "$log" || true)
  if ((status == 0 && passed > 0)); then
    echo "- $title: $passed tests passed" >>"$out"
  else
    echo "- $title: FAILED" >>"$out"
    { grep -E '^\[ +FAILED|^========= |no CUDA device' "$log" || true; } | head -n 20 |
      sed 's/^/    /' >>"$out"
    failed=1
  fi
  rm -f "$log"
}

{
  echo "# $gpu, $(date +%F)"
  echo
  echo "- commit: $commit"
  echo "- driver: $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)," \
    "$(nvcc --version | tail -n 1)"
  echo "- command: scripts/gpu_check.sh"
  printf '\n## Tests\n\n'
} >"$out"
for test in $cuda_tests; do check "$test" "$bin/$test"; done

# The sanitizers slow kernels down a hundredfold, so they see a part of the tests.
filter='*Models*:*RoutingRules*:*SortingRouter*:*Permutation*:*Affinity*:*Choice*:*Hash*'
tools=(memcheck)
if ! ((quick)); then tools+=(racecheck synccheck initcheck); fi
if command -v compute-sanitizer >/dev/null; then
  for tool in "${tools[@]}"; do
    for test in $cuda_tests; do
      check "compute-sanitizer $tool, $test" compute-sanitizer --tool "$tool" --error-exitcode 99 \
        "$bin/$test" --gtest_filter="$filter"
    done
  done
else
  echo "- compute-sanitizer is not installed here" >>"$out"
fi

shapes=()
if ((quick)); then shapes=("--models=deepseek-v3,128:8" "--tokens=1,256,16384" --repeats=5); fi
{
  printf '\n# Times\n\n'
  "$bin/gpu_bench" "${shapes[@]}"
  if ! ((quick)) && command -v python3 >/dev/null; then
    printf '\n## Beside PyTorch\n\n'
    python3 bench/torch_gpu_routing.py "$bin/gpu_bench"
  fi
} | tee -a "$out"

# Over NCCL, one rank, and several on one GPU where NCCL lets them.
over_nccl() { # program arguments…
  local log status=0
  log=$(mktemp)
  "$bin/$1" --transport nccl "${@:2}" >"$log" 2>&1 || status=$?
  {
    printf '\n```text\n$ %s --transport nccl%s\n' "$1" "$(printf ' %s' "${@:2}")"
    cat "$log"
    printf '```\n'
  } | tee -a "$out"
  rm -f "$log"
  return "$status"
}
if [[ $cuda_tests == *cuda_nccl_test* ]]; then
  printf '\n## Ranks over NCCL\n' | tee -a "$out"
  over_nccl alltoall_perf -b 1K -e 64M -f 8 || failed=1
  over_nccl moe_perf --model deepseek-v3 --hidden 7168 --tokens 128,4096 || failed=1
  export NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_MAX_CTAS=4
  # Exit code 2: this NCCL is older than 2.30, which the program says.
  over_nccl alltoall_perf -t 2 -b 1K -e 64M -f 8 || (($? == 2)) || failed=1
  over_nccl moe_perf -t 2 --model deepseek-v3 --hidden 7168 --tokens 128,4096 ||
    (($? == 2)) || failed=1
fi
echo "Written: $out"
exit "$failed"
