"""``lewm quickstart``: collect, train, plan and report in one environment."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from lewm.arrays import at_least
from lewm.cli.eval import ProgressBars
from lewm.envs import ENVIRONMENTS
from lewm.evaluation import format_table
from lewm.quickstart import Settings, check_settings, default_settings, quickstart
from lewm.report.sources import remember_command
from lewm.training import parse_overrides

_CHANGEABLE = (
    *("episodes", "eval_recorded", "eval_episodes", "goal_offset", "seed"),
    *("replan_every", "context", "proposals"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm quickstart``."""
    parser.add_argument(
        "out",
        nargs="?",
        type=Path,
        help="folder; an unfinished one is continued (default: quickstart_ENV)",
    )
    parser.add_argument(
        "--env",
        default="lewm/TwoRoom-v0",
        help=f"{', '.join(sorted(ENVIRONMENTS))}, or a short name such as two_room; it decides the other defaults",
    )
    parser.add_argument("--episodes", type=int, help="recorded to train on")
    parser.add_argument("--eval-recorded", type=int, help="recorded to draw starts and goals from")
    parser.add_argument("--eval-episodes", type=int, help="starts and goals to plan between")
    parser.add_argument("--goal-offset", type=int, help="environment steps from start to goal")
    parser.add_argument("--seed", type=int, help="of everything")
    parser.add_argument("--iterations", type=int, help="of the planner")
    parser.add_argument("--replan-every", type=int, help="blocks executed of a plan")
    parser.add_argument("--context", type=int, help="frames shown to the model")
    parser.add_argument(
        "--proposals", type=int, help="recorded sequences that a plan begins with the best of; 0: none"
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
    settings = _settings(args)
    with ProgressBars() as bars:

        def say(line: str) -> None:
            bars.close()
            print(line, flush=True)

        check_settings(settings)
        at_least("workers", args.workers)
        folder = args.out or _default_folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        remember_command(folder, args.command_line)
        result = quickstart(folder, settings, workers=args.workers, progress=bars, say=say)
    print(format_table(result.evaluation))
    print(f"report: {result.report}")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """The environment's settings with what the command line changes of them."""
    settings = default_settings(args.env)
    changed: dict[str, Any] = {
        name: getattr(args, name) for name in _CHANGEABLE if getattr(args, name) is not None
    }
    changed["train"] = {**settings.train, **parse_overrides(args.train)}
    if args.iterations is not None:
        changed["planner"] = {**settings.planner, "iterations": args.iterations}
    return dataclasses.replace(settings, **changed)


def _default_folder(settings: Settings) -> Path:
    return Path("quickstart_" + settings.env.removeprefix("lewm/").removesuffix("-v0"))
