#!/usr/bin/env bash
# Unpacks the Debian packages that a build needs into a folder, installing nothing: for machines
# that can install nothing themselves. Pass the folder to scripts/gpu_check.sh there.
set -euo pipefail

if (($# != 1)); then
  echo "usage: ${0##*/} FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT

packages=(libhwy-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev libgtest-dev
  libbenchmark-dev)
# The shared libraries behind them carry their version in their name.
for package in libhwy-dev libspdlog-dev libfmt-dev libbenchmark-dev; do
  while read -r library; do packages+=("$library"); done < <(
    apt-cache depends --no-recommends --no-suggests "$package" |
      sed -n 's/^ *Depends: \(lib\(hwy\|spdlog\|fmt\|benchmark\)[0-9].*\)$/\1/p'
  )
done
chmod a+rwx "$download" # apt downloads as a user of its own
(cd "$download" && apt-get download -qq "${packages[@]}")
for package in "$download"/*.deb; do dpkg -x "$package" "$folder"; done
rm -rf "$folder/usr/share/doc"
echo "Unpacked ${#packages[@]} packages into $folder"
