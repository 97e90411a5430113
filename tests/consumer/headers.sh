#!/usr/bin/env bash
# headers.sh INCLUDE: the installed headers compile alone and twice, without a warning, as C99 and C++17 and as later
# standards, with gcc and with clang.
set -euo pipefail
include=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#include <lewm/lewm.h>\n%.0s' 1 2 | tee "$work/c.c" >"$work/c.cpp"
printf '#include <lewm/lewm.hpp>\n%.0s' 1 2 >"$work/cpp.cpp"
flags=(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror -fsyntax-only -I"$include")
for compilers in "gcc g++" "clang clang++"; do
  read -r c cxx <<<"$compilers"
  for standard in c99 c11 c17; do "$c" -std=$standard -Wstrict-prototypes "${flags[@]}" "$work/c.c"; done
  for standard in c++17 c++20; do "$cxx" -std=$standard "${flags[@]}" "$work"/{c,cpp}.cpp; done
  echo "headers: $("$c" --version | head -n 1)"
done
