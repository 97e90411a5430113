"""``lewm eval``: success rates of a model under the paper's and the strict protocol."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lewm.cli.outputs import check_folder
from lewm.envs import environment_class
from lewm.evaluation import Evaluation, evaluate, format_table, write_report

_PLANNING_OPTIONS = (
    *("samples", "elites", "iterations", "horizon", "method", "backend", "device"),
    *("cost", "discount", "action_penalty", "action_hold", "std"),
    *("recorded", "proposals", "replan_every", "context", "precision", "threads"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lewm eval``."""
    parser.add_argument(
        "model", type=Path, help="checkpoint folder or .safetensors; with --agent gcbc the folder of the run"
    )
    parser.add_argument("data", type=Path, help="HDF5 file of episodes that starts and goals are drawn from")
    parser.add_argument(
        "--agent",
        choices=("planner", "gcbc"),
        default="planner",
        help="plan with a world model, or act by a cloned policy (default: %(default)s)",
    )
    parser.add_argument("--env", help="environment (default: the one that the file names)")
    parser.add_argument(
        "--out", type=Path, default=Path("eval"), help="folder for the report (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=200,
        help="of the strict protocol; the paper's has 50 (default: %(default)s)",
    )
    parser.add_argument(
        "--goal-offset", type=int, default=25, help="steps from start to goal (default: %(default)s)"
    )
    parser.add_argument(
        "--budget",
        type=int,
        help="environment steps per episode (default: 50, or 1.5 times a larger goal offset)",
    )
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: %(default)s)")
    parser.add_argument("--film", type=int, default=4, help="episodes in the film (default: %(default)s)")
    add_planner_arguments(parser)


def add_planner_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of planning; None: not given."""
    group = parser.add_argument_group("planner")
    group.add_argument("--samples", type=int, help="candidates (default: 300)")
    group.add_argument("--elites", type=int, help="kept of them (default: 30, or all)")
    group.add_argument("--iterations", type=int, help="refinements (default: 30; 1 for predictive)")
    group.add_argument("--horizon", type=int, help="blocks looked ahead (default: 5)")
    group.add_argument("--method", "--solver", help="cem, icem, mppi or predictive (default: cem)")
    group.add_argument(
        "--cost",
        choices=("final", "sum", "discounted"),
        help="distance to the goal at the last block (default), summed over all, or discounted",
    )
    group.add_argument("--discount", type=float, help="per block, of --cost discounted (default: 0.99)")
    group.add_argument("--action-penalty", type=float, help="times the squared standardised actions")
    group.add_argument(
        "--action-hold",
        type=int,
        help="environment steps that a candidate holds its action for within a block (default: 1)",
    )
    group.add_argument("--std", type=float, help="standard deviation of the first candidates (default: 1)")
    group.add_argument(
        "--recorded",
        type=Path,
        metavar="FILE",
        help="HDF5 file, the one trained on: plans begin with what was done there in similar frames",
    )
    group.add_argument(
        "--proposals",
        type=int,
        help="sequences of --recorded that a plan begins with the best of (default: 128)",
    )
    group.add_argument(
        "--backend",
        choices=("core", "torch"),
        help="that searches: the compiled core (default), or torch",
    )
    group.add_argument(
        "--device",
        help="of the core's search: cpu (default), cuda, cuda:1; of torch's: any (default: the best there is)",
    )
    group.add_argument("--replan-every", type=int, help="blocks executed of a plan (default: the horizon)")
    group.add_argument("--context", type=int, help="frames shown to the model (default: 1)")
    group.add_argument("--precision", help="of the model: auto, fp32, bf16, int8 (default: auto)")
    group.add_argument("--threads", type=int, help="of the planner (default: all cores)")


def planning_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of planning that were given."""
    return {name: getattr(args, name) for name in _PLANNING_OPTIONS if getattr(args, name) is not None}


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the table and writes the report."""
    for name, least in (("seed", 0), ("seeds", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"{name}: expected at least {least}, got {getattr(args, name)}")
    check_folder(args.out)
    with ProgressBars() as bars:
        result = evaluate(
            args.model,
            args.data,
            env=args.env,
            episodes=args.episodes,
            goal_offset=args.goal_offset,
            budget=args.budget,
            seeds=range(args.seed, args.seed + args.seeds),
            film=args.film,
            agent=args.agent,
            parts=args.out / "parts",
            progress=bars,
            **planning_options(args),
        )
    result.settings["command_line"] = args.command_line
    write_evaluation(result, args.out)
    return 0


def write_evaluation(result: Evaluation, folder: Path) -> None:
    """Prints the table and writes the report of an evaluation."""
    env = environment_class(result.settings["env"])(image_size=result.settings["image_size"])
    try:
        files = write_report(result, env, folder)
    finally:
        env.close()
    print(format_table(result))
    print("\n".join(map(str, files)))


class ProgressBars:
    """A bar for each label that reports progress."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._label = ""

    def __call__(self, label: str, done: int, total: int) -> None:
        """``done`` of ``total`` of what ``label`` names."""
        if self._bar is None or label != self._label:
            self.close()
            self._bar, self._label = tqdm(total=total, desc=label), label
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the current bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
