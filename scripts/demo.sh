#!/usr/bin/env bash
# Routes a small example trace through the whole pipeline and writes an HTML report.
#
# Works on a fresh machine; a second run only runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

trace=examples/traces/english.safetensors
report=build/demo/english.html

scripts/install_dependencies.sh
mkdir -p build/demo
log=build/demo/build.log
echo "Building the switchyard command (output in $log) ..."
if ! { cmake --preset default && cmake --build --preset default --target switchyard; } \
  >"$log" 2>&1; then
  cat "$log" >&2
  echo "The build failed; its output is above and in $PWD/$log." >&2
  exit 1
fi

build/default/bin/switchyard run "$trace" --report "$report"
echo
echo "Report: $PWD/$report"
