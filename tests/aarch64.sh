#!/usr/bin/env bash
# Builds the core for aarch64 with Debian's cross compiler and runs C++ tests of it under qemu, which has NEON and the
# dot products of bf16 and bytes:
#   tests/aarch64.sh BUILD_FOLDER TEST...
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { echo "usage: tests/aarch64.sh BUILD_FOLDER TEST..." >&2; exit 2; }
build=$1
shift
cmake -S . -B "$build" -G Ninja -DLEWM_TESTS=ON -DLEWM_PYTHON=OFF -DLEWM_CUDA=OFF \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64-static;-L;/usr/aarch64-linux-gnu" >/dev/null
cmake --build "$build" --target "$@"
ctest --test-dir "$build" --output-on-failure -j2 -R "^($(IFS='|'; echo "$*"))\$"
