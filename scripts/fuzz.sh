#!/usr/bin/env bash
# Builds every fuzzer and runs each for some seconds (60 unless told), side by side.
#
# What they learn stays in build/fuzz/corpus, what they break lands in build/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}

cmake --preset fuzz
cmake --build --preset fuzz

# A safetensors file: the header's length in 8 bytes, the header, and zeros for data.
write_trace() { # path header data_bytes
  local length=${#2}
  {
    # shellcheck disable=SC2059  # the length is written as two escaped bytes
    printf "\\x$(printf %02x $((length % 256)))\\x$(printf %02x $((length / 256)))\0\0\0\0\0\0"
    printf %s "$2"
    head -c "$3" /dev/zero
  } >"$1"
}
seeds=build/fuzz/seeds/trace_fuzzer
mkdir -p "$seeds" build/fuzz/artifacts
metadata='"__metadata__":{"model":"tiny","num_experts":"4","top_k":"2"}'
write_trace "$seeds/logits" "{$metadata,"'"layers.0.router_logits":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}' 32
write_trace "$seeds/half" "{$metadata,"'"layers.3.router_logits":{"dtype":"BF16","shape":[2,4],"data_offsets":[0,16]},"layers.3.correction_bias":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}' 32
write_trace "$seeds/routed" '{"layers.0.expert_ids":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]},"layers.0.gate_weights":{"dtype":"F32","shape":[2,2],"data_offsets":[16,32]},"layers.0.tokens_per_expert":{"dtype":"I64","shape":[4],"data_offsets":[32,64]}}' 64

pids=()
names=()
for source in tests/fuzz/*_fuzzer.cpp; do
  name=$(basename "$source" .cpp)
  directories=("build/fuzz/corpus/$name")
  mkdir -p "${directories[0]}"
  if [[ -d build/fuzz/seeds/$name ]]; then directories+=("build/fuzz/seeds/$name"); fi
  "build/fuzz/bin/$name" -max_total_time="$seconds" -max_len=8192 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/artifacts/$name-" "${directories[@]}" >"build/fuzz/$name.log" 2>&1 &
  pids+=($!)
  names+=("$name")
done

failed=0
for i in "${!pids[@]}"; do
  if wait "${pids[i]}"; then
    grep -E '^(Done|stat::number_of_executed_units)' "build/fuzz/${names[i]}.log" |
      sed "s/^/${names[i]}: /"
  else
    failed=1
    tail -n 60 "build/fuzz/${names[i]}.log" >&2
    echo "${names[i]} failed; the input that does it is in build/fuzz/artifacts" >&2
  fi
done
exit "$failed"
