"""``lewm report``: everything about a run in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from lewm.cli.outputs import check_inputs
from lewm.report import write_html


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm report``."""
    parser.add_argument(
        "run", type=Path, help="folder of a run or a quickstart, with the results of the other commands in it"
    )
    parser.add_argument("--out", type=Path, help="file (default: RUN/report.html)")


def run(args: argparse.Namespace) -> int:
    """Writes the report and says where it is."""
    if args.out is not None:
        check_inputs(args.out, (args.run,), ".html")
    print(write_html(args.run, args.out))
    return 0
