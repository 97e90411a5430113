#!/usr/bin/env bash
# run.sh [--shared-only] PREFIX MODEL: configures, builds and runs the consumer against an installed lewm.
# PREFIX: what was given to `cmake --install --prefix`, /usr for the Debian package, or what `python -m lewm --cmake-dir`
# prints for a wheel. MODEL: a deployment file (make_model_file writes a small one).
# --shared-only: for a wheel, which has neither the static library nor the pkg-config file that are required elsewhere.
set -euo pipefail
shared_only=
if [[ $1 == --shared-only ]]; then
  shared_only=1
  shift
fi
prefix=$(realpath "$1")
model=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

cmake -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
  ${LEWM_CMAKE_DIR:+-Dlewm_DIR="$LEWM_CMAKE_DIR"} >"$build/configure.log" || { cat "$build/configure.log"; exit 1; }
cmake --build "$build" >"$build/build.log" || { cat "$build/build.log"; exit 1; }

programs=(consumer_c consumer_cpp)
[[ $shared_only ]] || programs+=(consumer_static)
expected=""
for program in "${programs[@]}"; do
  [[ -x $build/$program ]] || { echo "$program was not built: its library is not in $prefix" >&2; exit 1; }
  plan=$("$build/$program" "$model")
  echo "$program: $(head -n 1 <<<"$plan")"
  [[ -z $expected || $plan == "$expected" ]] || { echo "$program: another plan than consumer_c's" >&2; exit 1; }
  expected=$plan
  # Names, not paths: a wheel's own library lies in a folder of Python's.
  if ldd "$build/$program" | awk '{print $1, /not found/ ? "not found" : ""}' | grep -Ei 'python|torch|gomp|omp\.so|not found'; then
    echo "$program: needs a library that it should not" >&2
    exit 1
  fi
done

# A project without C++ links the static library.
if [[ ! $shared_only ]]; then
  cmake -S "$here/c_only" -B "$build/c_only" -DCMAKE_PREFIX_PATH="$prefix" >"$build/c_only.log" &&
    cmake --build "$build/c_only" >>"$build/c_only.log" || { cat "$build/c_only.log"; exit 1; }
  [[ $("$build/c_only/consumer_c" "$model") == "$expected" ]] || { echo "c_only: another plan" >&2; exit 1; }
  echo "C alone, static: ok"
elif cmake -S "$here/c_only" -B "$build/c_only" -DCMAKE_PREFIX_PATH="$prefix" >"$build/c_only.log" 2>&1 ||
  ! grep -q 'component static: expected' "$build/c_only.log"; then
  cat "$build/c_only.log" >&2; echo "c_only: expected the refusal of a component that is not there" >&2; exit 1
fi

# The examples run; the ROS 2 node answers the four of its stub's images that it can act on.
"$build/minimal" "$model" >/dev/null
"$build/embed_existing_loop" "$model" 6 >/dev/null
commands=$("$build/ros2_node" --ros-args -p model:="$model" -p low:=-1,-1 -p high:=1,1 2>"$build/ros2.log")
[[ $(wc -l <<<"$commands") == 4 ]] || { cat "$build/ros2.log" >&2; echo "ros2_node: expected 4 commands" >&2; exit 1; }
for message in 'no goal yet' 'got yuv422' 'got 0 x 0'; do
  grep -q "$message" "$build/ros2.log" || { cat "$build/ros2.log" >&2; echo "ros2_node: no '$message'" >&2; exit 1; }
done
# Resizing the last image takes longer than this deadline: no time is left to plan, which leaves the mean action.
last=$("$build/ros2_node" --ros-args -p model:="$model" -p deadline:=0.001 2>/dev/null | tail -n 1)
[[ $last == "10 -3 " ]] || { echo "ros2_node: planned for '$last' after its deadline" >&2; exit 1; }
echo "examples: ok"

if [[ ! $shared_only ]]; then
  pc=$(find "$prefix" -path '*pkgconfig/lewm.pc' -print -quit)
  [[ -n $pc ]] || { echo "pkg-config: no lewm.pc in $prefix" >&2; exit 1; }
  export PKG_CONFIG_PATH=$(dirname "$pc")
  libdir=$(pkg-config --variable=libdir lewm)
  # shellcheck disable=SC2046
  cc -std=c99 "$here/consumer.c" $(pkg-config --cflags --libs lewm) -Wl,-rpath,"$libdir" -o "$build/consumer_pc"
  [[ $("$build/consumer_pc" "$model") == "$expected" ]] || { echo "pkg-config: another plan" >&2; exit 1; }
  echo "pkg-config: ok"
fi
