#!/usr/bin/env bash
# The whole C++ suite under sanitizers, and with AddressSanitizer the Python tests of the core: the long run of which CI
# does a part. Usage: tests/sanitize.sh [address,undefined | thread] [BUILD] (a new temporary folder).
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizers=${1:-address,undefined}
build=${2:-$(mktemp -d)}
python=${PYTHON:-python3}

configure=(-DLEWM_TESTS=ON -DLEWM_CUDA=OFF -DLEWM_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE=Debug
  -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1")  # compiles in half the time of -O2 -g
if [[ $sanitizers == *address* ]]; then
  configure+=(-DLEWM_PYTHON=ON -DPython_EXECUTABLE="$(command -v "$python")"
    -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)")
fi
cmake -S . -B "$build" -G Ninja "${configure[@]}" >/dev/null
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure

if [[ $sanitizers == *address* ]]; then
  package=$build/package
  rm -rf "$package" && mkdir "$package" && cp -r python/lewm "$package" && rm -f "$package"/lewm/_core*.so
  cp "$build"/_core*.so "$package/lewm"
  # CPython itself leaks at exit by design; the library's own leaks show in the C++ suite.
  PYTHONPATH=$package ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so.6)" \
    "$python" -m pytest -q tests/python/test_{model,planner,controller,parity_golden,checkpoint_safetensors}.py
fi
