#!/usr/bin/env bash
# Builds for this machine's GPU, runs the tests on it, bare and under compute-sanitizer, times it,
# and writes bench/results/<GPU>-<date>.md.
#
# usage: gpu_check.sh [--quick] [--stage NAMES] [--minutes N] [--dependencies FOLDER]
#                     [--commit HASH] [--results FOLDER] [--vllm FOLDER] [--flashinfer FOLDER]
#   --quick         one sanitizer and a few shapes
#   --stage         only these of build,tests,memcheck,racecheck,synccheck,initcheck,times,peers,nccl;
#                   what they find is added to the day's file. All but build need a build
#   --minutes       stop after so many: what runs then and what was still to come is left out, which
#                   the file says, and which counts as failed. A stopped build goes on the next time
#   --dependencies  where scripts/unpack_dependencies.sh put what is not installed
#   --commit        what to call this tree where git does not know it
#   --results       where to write instead
#   --vllm, --flashinfer  where their source lies (bench/peers/README.md), to be timed beside; for the
#                   build
#
# Needs nothing from a network; says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '5,/^#$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit "$1"
}

command_line="scripts/gpu_check.sh${*:+ $*}"
all_stages=build,tests,memcheck,racecheck,synccheck,initcheck,times,peers,nccl
quick=0
stages=
minutes=0
dependencies=
commit=
results=bench/results
peers=()
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --help) usage 0 ;;
    --stage | --minutes | --dependencies | --commit | --results | --vllm | --flashinfer)
      (($# > 1)) || usage 2 >&2
      case $1 in
        --stage) stages=$2 ;;
        --minutes) minutes=$2 ;;
        --dependencies) dependencies=$(cd "$2" && pwd) ;;
        --commit) commit=$2 ;;
        --results) results=$2 ;;
        --vllm) peers+=("-DSWITCHYARD_VLLM_SOURCE=$(cd "$2" && pwd)") ;;
        --flashinfer) peers+=("-DSWITCHYARD_FLASHINFER_SOURCE=$(cd "$2" && pwd)") ;;
      esac
      shift
      ;;
    *) usage 2 >&2 ;;
  esac
  shift
done
for stage in ${stages//,/ }; do
  if [[ ,$all_stages, != *,$stage,* ]]; then
    echo "gpu_check.sh: no stage $stage; there are $all_stages" >&2
    exit 2
  fi
done
if [[ ! $minutes =~ ^[0-9]+$ ]]; then
  echo "gpu_check.sh: --minutes is $minutes, must be a whole number" >&2
  exit 2
fi
anew=0
if [[ -z $stages ]]; then
  anew=1
  stages=$all_stages
  if ((quick)); then stages=build,tests,memcheck,times,nccl; fi
fi
wants() { [[ ,$stages, == *,$1,* ]]; }

missing=()
tools=(nvidia-smi)
headers=()
if wants build; then
  tools+=(nvcc cmake c++)
  headers=(hwy/highway.h spdlog/spdlog.h fmt/core.h CLI/CLI.hpp nlohmann/json.hpp gtest/gtest.h
    benchmark/benchmark.h)
fi
for tool in "${tools[@]}"; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
for header in "${headers[@]}"; do
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

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | sed -n 1p)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sed -n 1p | tr -d .)
if [[ -z $commit ]]; then
  commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo "unknown to git")
  if [[ -n $(git status --porcelain --untracked-files=no 2>/dev/null) ]]; then
    commit+=", changed since"
  fi
fi

# Runs a command for as long as --minutes leave; 124 where that ends it.
limited() {
  local rest=$((minutes * 60 - SECONDS))
  if ((minutes == 0)); then
    "$@"
  elif ((rest < 5)); then
    return 124
  else
    timeout --kill-after=5 "$rest" "$@"
  fi
}
is_stopped() { (($1 == 124 || $1 == 137)); }

build=build/gpu
bin=$build/bin
if [[ -n $dependencies ]]; then
  libraries=$(echo "$dependencies"/usr/lib/*-linux-gnu)
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
cuda_tests=$(sed -n 's/^ *cuda_suite(\([a-z_]*\).*/\1/p' tests/CMakeLists.txt)
programs=(gpu_bench switchyard alltoall_perf moe_perf)
if wants build; then
  generator=()
  if [[ ! -e $build/CMakeCache.txt ]] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  # Line numbers are for the sanitizers; the code is the same.
  limited cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DCMAKE_CUDA_FLAGS=-lineinfo \
    -DSWITCHYARD_WERROR=OFF ${dependencies:+-DCMAKE_PREFIX_PATH="$dependencies/usr"} "${peers[@]}"
fi
if [[ ! -e $build/CMakeCache.txt ]]; then
  echo "gpu_check.sh: nothing is built in $build; --stage build does that" >&2
  exit 1
fi
with_nccl=1
if ! grep -q '^SWITCHYARD_NCCL_LIBRARY:.*=/' "$build/CMakeCache.txt"; then
  with_nccl=0
  cuda_tests=${cuda_tests/cuda_nccl_test/}
fi
if wants build; then
  status=0
  # shellcheck disable=SC2086  # a list of words
  limited cmake --build "$build" --parallel "$(nproc)" --target $cuda_tests "${programs[@]}" ||
    status=$?
  if is_stopped "$status"; then
    echo "gpu_check.sh: the build was stopped after $minutes minutes; it goes on the next time" >&2
  fi
  if ((status)); then exit 1; fi
  echo "Built after $SECONDS s"
fi
for program in $cuda_tests "${programs[@]}"; do
  if [[ ! -x $bin/$program ]]; then
    echo "gpu_check.sh: $bin/$program is missing; --stage build makes it" >&2
    exit 1
  fi
done
if [[ $stages == build ]]; then exit 0; fi

mkdir -p "$results"
slug=$(tr -cs '[:alnum:]' '-' <<<"${gpu,,}" | sed 's/^-*//; s/-*$//')
out=$results/$slug-$(date +%F).md
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0

say() { printf '%b\n' "$*" | tee -a "$out"; }

if ((anew)) || [[ ! -e $out ]]; then
  {
    echo "# $gpu, $(date +%F)"
    echo
    echo "- commit: $commit"
    echo "- driver: $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed -n 1p)," \
      "$(nvcc --version 2>/dev/null | tail -n 1)"
    echo "- command: $command_line"
  } >"$out"
fi

# A test program's summary goes into the file; of one that failed, all that it said onto the
# terminal.
summarize() { # title log status
  local passed
  passed=$(grep -cE '^\[ +OK \]' "$2" || true)
  if (($3 == 0 && passed > 0)); then
    say "- $1: $passed tests passed"
    return
  fi
  failed=1
  if is_stopped "$3"; then
    say "- $1: STOPPED for want of time, $passed tests passed until then"
    return
  fi
  cat "$2"
  say "- $1: FAILED, status $3, $passed tests passed"
  { grep -E '^\[ +FAILED|^========= |no CUDA device' "$2" || true; } | sed -n '1,20s/^/    /p' |
    tee -a "$out"
}

# Runs the test programs, a few at once, since most of their time is the host's.
check() { # title tests arguments… -- command…
  local title=$1 tests=$2 at_once=4 arguments=() test
  shift 2
  while [[ $1 != -- ]]; do
    arguments+=("$1")
    shift
  done
  shift
  for test in $tests; do
    while (($(jobs -rp | wc -l) >= at_once)); do sleep 0.2; done
    (
      status=0
      limited "$@" "$bin/$test" "${arguments[@]}" >"$logs/$test" 2>&1 || status=$?
      echo "$status" >"$logs/$test.status"
    ) &
  done
  wait
  for test in $tests; do
    summarize "$title$test" "$logs/$test" "$(<"$logs/$test.status")"
  done
  echo "$SECONDS s after the start"
}

if wants tests; then
  say "\n## Tests\n"
  check "" "$cuda_tests" --
fi

# The sanitizers slow kernels down a hundredfold, so they see a part of the tests. They hear of
# errors that a call returns from the tests; ranks have a process's threads and other libraries'
# kernels.
filter='*Models*:*RoutingRules*:*SortingRouter*:*Permutation*:*Affinity*:*Choice*:*Hash*'
filter+=':*Slot*:*Feed*'
checkers=()
for tool in memcheck racecheck synccheck initcheck; do
  if wants "$tool"; then checkers+=("$tool"); fi
done
if ((${#checkers[@]})); then
  say "\n## Under compute-sanitizer\n"
  if command -v compute-sanitizer >/dev/null; then
    for tool in "${checkers[@]}"; do
      check "$tool, " "${cuda_tests/cuda_nccl_test/}" --gtest_filter="$filter" -- \
        compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 99
    done
  else
    say "- compute-sanitizer is not installed here"
  fi
fi

# Prints what a program prints, into the file too.
record() { # command…
  local status=0
  limited "$@" 2>&1 | tee -a "$out" || status=$?
  if ((status == 0)); then return; fi
  failed=1
  if is_stopped "$status"; then
    say "\nSTOPPED for want of time."
  else
    say "\nFAILED, status $status."
  fi
}

if wants times; then
  shapes=()
  if ((quick)); then shapes=("--models=deepseek-v3,128:8" "--tokens=1,256,16384" --repeats=5); fi
  say "\n# Times\n"
  record "$bin/gpu_bench" "${shapes[@]}"
fi
if wants peers; then
  say "\n## Beside PyTorch\n"
  if command -v python3 >/dev/null; then
    record python3 bench/torch_gpu_routing.py "$bin/gpu_bench"
  else
    say "There is no python3 here."
  fi
fi

# Over NCCL, one rank, and several on one GPU where NCCL lets them.
over_nccl() { # program arguments…
  local status=0
  limited "$bin/$1" --transport nccl "${@:2}" >"$logs/nccl" 2>&1 || status=$?
  {
    printf '\n```text\n$ %s --transport nccl%s\n' "$1" "$(printf ' %s' "${@:2}")"
    cat "$logs/nccl"
    if is_stopped "$status"; then echo "STOPPED for want of time."; fi
    printf '```\n'
  } | tee -a "$out"
  return "$status"
}
if wants nccl && ((with_nccl)); then
  say "\n## Ranks over NCCL"
  over_nccl alltoall_perf -b 1K -e 64M -f 8 || failed=1
  over_nccl moe_perf --model deepseek-v3 --hidden 7168 --tokens 128,4096 || failed=1
  export NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_MAX_CTAS=4
  # Exit code 2: this NCCL is older than 2.30, which the program says.
  over_nccl alltoall_perf -t 2 -b 1K -e 64M -f 8 || (($? == 2)) || failed=1
  over_nccl moe_perf -t 2 --model deepseek-v3 --hidden 7168 --tokens 128,4096 ||
    (($? == 2)) || failed=1
elif wants nccl; then
  say "\nNCCL is not installed here."
fi
echo "Written: $out, after $SECONDS s"
exit "$failed"
