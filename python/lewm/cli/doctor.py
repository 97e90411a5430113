"""``lewm doctor``: what this build and machine can do, and what is missing."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lewm.doctor import report

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Prints the report."""
    facts = report()
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    core, system = facts["core"], facts["system"]
    print(f"lewm {core['version']}, Python {system['python']} on {system['platform']}")
    print("\ncore")
    _line("instruction sets built", ", ".join(core["isas_built"]))
    _line("available here", ", ".join(core["isas_available"]))
    _line("in use", core["isa"] + "  (LEWM_ISA forces another)")
    _line("threads", str(core["threads"]))
    multiplied = core["multiplied_in"].items()
    _line("precisions", ", ".join(name if name == by else f"{name} (in {by})" for name, by in multiplied))
    _line("precision auto", f"{core['precision']}: {core['precision_reason']}")
    _line("CUDA backend", core["cuda_module"] if core["cuda"] else f"not usable: {core['cuda_reason']}")
    _line("NVIDIA GPUs", str(facts["gpu"]["nvidia"]))
    print("\npackages")
    for name, package in facts["packages"].items():
        _line(name, _presence(package["version"], package))
    print("\nlibraries")
    for name, library in facts["libraries"].items():
        _line(name, _presence(library["found"], library))


def _presence(found: str | None, facts: dict[str, Any]) -> str:
    return found if found else f"missing, needed for {facts['for']}: {facts['install']}"


def _line(name: str, value: str) -> None:
    print(f"  {name:<24}{value}")
