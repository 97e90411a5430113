"""``lewm quickstart``: collect, train, plan and report on Two-Room, in minutes."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from lewm.cli.eval import ProgressBars
from lewm.evaluation import format_table
from lewm.quickstart import Settings, quickstart
from lewm.training import parse_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm quickstart``."""
    defaults = Settings()
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("quickstart"), help="folder; an unfinished one is continued"
    )
    parser.add_argument(
        "--episodes", type=int, default=defaults.episodes, help="to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--eval-episodes", type=int, default=defaults.eval_episodes, help="to plan in (default: %(default)s)"
    )
    parser.add_argument(
        "--goal-offset", type=int, default=defaults.goal_offset, help="steps (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="of everything (default: %(default)s)"
    )
    parser.add_argument("--iterations", type=int, help="of the planner")
    parser.add_argument(
        "--replan-every", type=int, default=defaults.replan_every, help="blocks executed of a plan"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that collect (default: %(default)s)"
    )
    parser.add_argument(
        "--train",
        nargs="+",
        default=[],
        metavar="key=value",
        help="training settings over the preset's: steps=1000",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the stages that are not done, and says where the report is."""
    settings = Settings(
        episodes=args.episodes,
        eval_episodes=args.eval_episodes,
        goal_offset=args.goal_offset,
        seed=args.seed,
        train=parse_overrides(args.train),
        replan_every=args.replan_every,
    )
    if args.iterations is not None:
        settings = dataclasses.replace(settings, planner={**settings.planner, "iterations": args.iterations})
    with ProgressBars() as bars:

        def say(line: str) -> None:
            bars.close()
            print(line, flush=True)

        result = quickstart(args.out, settings, workers=args.workers, progress=bars, say=say)
    print(format_table(result.evaluation))
    print(f"report: {result.report}")
    return 0
