#!/usr/bin/env bash
# Prints a Markdown table of what the compiler makes of every CUDA kernel: registers on sm_80, sm_90
# and sm_100, stack frame and static shared memory. Fails when a kernel spills, and where its code
# may round otherwise than its source says or read what others write through a cache that does not
# notice. Needs nvcc, no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

architectures=(80 90 100)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# What ptxas says, one line a kernel: architecture, kernel, stack, spills, registers, shared bytes.
report() { # architecture source
  nvcc -arch="sm_$1" -std=c++20 --fmad=false --expt-relaxed-constexpr -diag-suppress=554 \
    -Xptxas -v -I. -Iinclude -keep -keep-dir "$folder" \
    -cubin -o "$folder/$1-$$-$(basename "$2")" "$2" 2>&1 |
    awk -v architecture="$1" -F"[ ,']+" '
      /Compiling entry function/ {
        for (i = 1; i <= NF; ++i) if ($i == "function") kernel = $(i + 1)
      }
      /bytes stack frame/ { stack = $2; spills = $6 + $10 }
      /Used [0-9]+ registers/ {
        shared = 0
        for (i = 1; i <= NF; ++i) {
          if ($i == "registers") registers = $(i - 1)
          if ($i == "smem") shared = $(i - 2)
        }
        print architecture, kernel, stack, spills, registers, shared
      }'
}

# What is not written as exactly as the sources say: arithmetic that flushes, approximates or leaves
# the rounding, and so contraction, to the next compiler, such as a driver's; and loads by the
# read-only path.
loose='\.(approx|ftz)|(add|sub|mul|fma|div|sqrt)(\.full)?\.f(32|64)|mad\.f|ld\.global\.nc'
: >"$folder/loose"

for source in cuda/*.cu; do
  for architecture in "${architectures[@]}"; do
    report "$architecture" "$source"
    ptx=$folder/$(basename "$source" .cu).ptx
    grep -EnH "$loose" "$ptx" >>"$folder/loose" || true
    rm "$ptx"
  done
done | c++filt >"$folder/lines"
if [[ -s $folder/loose ]]; then
  sed "s|^$folder/||" "$folder/loose" | head -n 20 >&2
  echo "kernel_report.sh: the lines above are not what the sources say" >&2
  exit 1
fi

awk '
  {
    # The kernel`s name holds spaces: the first field and the last four are the others.
    name = $2
    for (i = 3; i <= NF - 4; ++i) name = name " " $i
    gsub(/switchyard::|cuda::|void |\(.*\)|bench::/, "", name)
    gsub(/\(int\)/, "", name)
    if (!(name in seen)) { seen[name] = 1; order[++count] = name }
    registers[name, $1] = $(NF - 1)
    if ($(NF - 3) > stack[name]) stack[name] = $(NF - 3)
    if ($NF > shared[name]) shared[name] = $NF
    if ($(NF - 2) > 0) { print name " spills on sm_" $1 > "/dev/stderr"; failed = 1 }
  }
  END {
    print "| kernel | sm_80 | sm_90 | sm_100 | stack, bytes | shared memory, bytes |"
    print "|---|---|---|---|---|---|"
    for (i = 1; i <= count; ++i) {
      name = order[i]
      printf "| %s | %d | %d | %d | %d | %d |\n", name, registers[name, 80], registers[name, 90],
        registers[name, 100], stack[name], shared[name]
    }
    exit failed
  }' "$folder/lines"
