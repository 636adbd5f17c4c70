#!/usr/bin/env bash
# Runs the tests with line coverage and fails where cpu/, nccl/ and stats/ fall under 95 %.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cmake --preset coverage
cmake --build --preset coverage
find build/coverage -name '*.gcda' -delete
ctest --preset coverage --parallel 2 --output-on-failure

# Only the library's own objects are read, not the tests'. A line that Highway compiles once per
# instruction set counts as covered when one of them ran.
gcovr --root . --filter 'cpu/' --filter 'nccl/' --filter 'stats/' \
  --html-details build/coverage/report.html --txt --print-summary \
  --fail-under-line 95 -j 2 \
  build/coverage/cpu build/coverage/nccl build/coverage/stats
