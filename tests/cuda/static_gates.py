"""What can be said of the CUDA kernels without a GPU: registers and spills within recorded budgets, and instructions.

    python tests/cuda/static_gates.py            # check
    python tests/cuda/static_gates.py --record   # write what was found as the new budget

Needs nvcc. Exit status 1 names every kernel that is over its budget, spills, or lacks the instructions it stands for.
That the kernels compile for every architecture is seen where the module is built (cmake/cuda.cmake).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET = Path(__file__).with_name("budget.json")
ARCHITECTURES = ("80", "90")
"""Whose registers and spills are held to the budget."""
INSTRUCTIONS = {
    "gemm": ("mma.sync", "ldmatrix", "cp.async"),
    "full_attention": ("mma.sync", "ldmatrix", "cp.async"),
}

_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def nvcc(*arguments: str) -> str:
    """Runs nvcc and returns what it printed; a failure ends the program with it."""
    command = ["nvcc", "-std=c++20", "-O3", "-fmad=false", f"-I{ROOT / 'csrc'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def usage(source: Path, folder: Path) -> dict[str, dict[str, int]]:
    """Registers and spilled bytes of each kernel, "kernel sm_N" -> numbers."""
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in ARCHITECTURES]
    report = nvcc(*targets, "-Xptxas=-v", "-c", str(source), "-o", str(folder / f"{source.stem}.o"))
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in report.splitlines():
        if match := _FUNCTION.search(line):
            name = f"{kernel_name(match[1])} sm_{match[2]}"
            found[name] = {"registers": 0, "spills": 0}
        elif match := _SPILLS.search(line):
            found[name]["spills"] = max(int(match[1]), int(match[2]))
        elif match := _REGISTERS.search(line):
            found[name]["registers"] = int(match[1])
    return found


def kernel_name(mangled: str) -> str:
    """A kernel's own name, with the numbers and flags of its template arguments."""
    demangled = subprocess.run(
        ["c++filt", mangled], capture_output=True, text=True, check=True
    ).stdout.strip()
    match = re.search(r"(\w+_kernel)(<.*>)?\(", demangled)
    if not match:
        return mangled
    arguments = re.findall(r"\b(?:\d+|true|false)\b", match[2] or "")
    return match[1] + (f"<{','.join(arguments)}>" if arguments else "")


def missing_instructions(source: Path, folder: Path) -> list[str]:
    """Instructions that the source's PTX should hold and does not."""
    wanted = INSTRUCTIONS.get(source.stem, ())
    if not wanted:
        return []
    ptx = folder / f"{source.stem}.ptx"
    nvcc("-arch=compute_80", "-ptx", str(source), "-o", str(ptx))
    text = ptx.read_text()
    return [f"{source.stem}: its PTX has no {name}" for name in wanted if name not in text]


def main() -> int:
    """Checks, or records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the budget instead of checking it")
    record = parser.parse_args().record
    budget = {} if record else json.loads(BUDGET.read_text())
    found: dict[str, dict[str, int]] = {}
    complaints: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
            kernels = usage(source, folder)
            found |= kernels
            complaints += missing_instructions(source, folder)
            print(f"{source.name}: {len(kernels)} kernels and architectures")
    if record:
        BUDGET.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return 0
    for key, used in found.items():
        allowed = budget.get(key)
        if allowed is None:
            complaints.append(f"{key}: not in the budget")
            continue
        for what in ("registers", "spills"):
            if used[what] > allowed[what]:
                complaints.append(f"{key}: {used[what]} {what}, budget {allowed[what]}")
    complaints += [f"{key}: in the budget, but there is no such kernel" for key in budget if key not in found]
    print("\n".join(complaints) or f"{len(found)} kernels within their budget")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
