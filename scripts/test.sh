#!/usr/bin/env bash
# Builds switchyard and runs its tests, on a fresh machine too.
#
# Arguments go to ctest: `scripts/test.sh -R Permute`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install_dependencies.sh
cmake --preset default
cmake --build --preset default
# ctest's closing lines are the last ones printed.
ctest --preset default --parallel 2 "$@"
