#!/usr/bin/env bash
# Installs what switchyard needs to build; with --developer also what its checks need.
#
# Looks first and touches nothing when everything is there. Debian and Ubuntu only; elsewhere it
# lists what is needed and fails.
set -euo pipefail

tools=(g++:g++ cmake:cmake ninja:ninja-build ccache:ccache) # command:package
libraries=(libhwy-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev libgtest-dev
  libbenchmark-dev libopenmpi-dev openmpi-bin prometheus-cpp-dev)
developer=0
case "${1-}" in
  "") ;;
  --developer)
    developer=1
    tools+=(clang++:clang clang-format:clang-format clang-tidy:clang-tidy gcovr:gcovr git:git
      promtool:prometheus)
    ;;
  *)
    echo "usage: ${0##*/} [--developer]" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  cat >&2 <<'END'
This script installs packages on Debian and Ubuntu only. Elsewhere, install by hand:
  a C++20 compiler (GCC 12 or Clang 14 and later), CMake 3.25 or later, Ninja, ccache (optional)
  Highway 1.0.3 or later, spdlog, fmt, CLI11, nlohmann-json, GoogleTest, Google Benchmark
  Open MPI 4 or later, prometheus-cpp 1.0 or later (optional)
  for the checks: clang with its sanitizer runtimes, clang-format, clang-tidy, gcovr, promtool
then build with `cmake --preset default && cmake --build --preset default`.
END
  exit 1
fi

installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

missing=()
for entry in "${tools[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
for package in "${libraries[@]}"; do
  installed "$package" || missing+=("$package")
done

# The sanitizer and fuzzer runtimes belong to one version of clang.
clang_version() {
  if command -v clang++ >/dev/null; then
    clang++ -dumpversion | cut -d. -f1
  else
    apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]\+\)$/\1/p' | head -n 1
  fi
}
runtime_installed() {
  command -v clang++ >/dev/null &&
    [[ -e $(clang++ -print-runtime-dir)/libclang_rt.fuzzer-$(uname -m).a ||
      -e $(clang++ -print-runtime-dir)/libclang_rt.fuzzer.a ||
      -e $(clang++ -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a ]]
}
needs_runtime=0
if ((developer)) && ! runtime_installed; then needs_runtime=1; fi

if ((${#missing[@]} == 0 && !needs_runtime)); then exit 0; fi

as_root=(env DEBIAN_FRONTEND=noninteractive)
if ((EUID != 0)); then
  command -v sudo >/dev/null || {
    echo "Missing: ${missing[*]}. Installing them needs root or sudo." >&2
    exit 1
  }
  as_root=(sudo "${as_root[@]}")
fi
apt=("${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300)

"${apt[@]}" update -qq </dev/null
if ((needs_runtime)); then
  version=$(clang_version)
  # Older releases ship the runtimes inside libclang-common.
  for package in "libclang-rt-$version-dev" "libclang-common-$version-dev"; do
    if apt-cache show "$package" >/dev/null 2>&1; then
      missing+=("$package")
      break
    fi
  done
fi
echo "Installing: ${missing[*]}"
"${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}" </dev/null
