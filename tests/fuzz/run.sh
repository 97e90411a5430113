#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for SECONDS_PER_TARGET (600) from its corpus; a finding fails the run
# and is written to BUILD/findings. Usage: tests/fuzz/run.sh [BUILD] (a new temporary folder).
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-$(mktemp -d)}
seconds=${SECONDS_PER_TARGET:-600}
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DLEWM_FUZZ=ON -DLEWM_SHARED=OFF -DLEWM_CUDA=OFF \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLEWM_SANITIZE=address,undefined >/dev/null
cmake --build "$build"
mkdir -p "$build/findings"
for target in "$build"/fuzz_*; do
  name=${target##*/fuzz_}
  mkdir -p "$build/corpus/$name"
  echo "fuzz_$name: $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -artifact_prefix="$build/findings/$name-" \
    -print_final_stats=1 "$build/corpus/$name" "tests/fuzz/corpus/$name" 2>&1 | tail -n 12
done
