"""lewm train [SETTINGS.yaml] [key=value ...] [--resume RUN]"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from lewm.nn.objectives import OBJECTIVES
from lewm.report.sources import remember_command
from lewm.training import PRESETS, parse_overrides, train
from lewm.training.config import CLONING

_EXAMPLES = """examples:
  lewm train preset=tiny data=two_room.h5 out=runs/two_room
  lewm train settings.yaml lr=3e-4 model.encoder_depth=6
  lewm train --resume runs/two_room
  torchrun --nproc-per-node 2 -m lewm train preset=paper data=push_t.h5 out=runs/push_t
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="SETTINGS.yaml | key=value",
        help="a YAML file of settings, and settings over it (docs/training.md lists them)",
    )
    parser.add_argument("--preset", choices=PRESETS, help="settings to start from; the same as preset=NAME")
    parser.add_argument("--objective", choices=(*OBJECTIVES, CLONING), help="the same as objective=NAME")
    parser.add_argument(
        "--encoder",
        metavar="MODULE:FACTORY",
        help="another image encoder; the same as encoder=..., with freeze_encoder=true it keeps its weights",
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")


def run(args: argparse.Namespace) -> int:
    """Trains, and prints where the results are."""
    files = [word for word in args.settings if "=" not in word]
    if len(files) > 1:
        raise ValueError(f"settings: expected one YAML file, got {', '.join(files)}")
    overrides: dict[str, Any] = parse_overrides([word for word in args.settings if "=" in word])
    overrides |= {
        name: value for name in ("objective", "encoder") if (value := getattr(args, name)) is not None
    }
    preset = overrides.pop("preset", args.preset)
    folder = args.resume or overrides.get("out")
    try:
        result = train(files[0] if files else None, preset=preset, resume=args.resume, **overrides)
        folder = result.folder
    finally:
        if isinstance(folder, (str, Path)) and Path(folder).is_dir() and os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # whatever ended the training is what there is to say
                remember_command(Path(folder), args.command_line)
    if os.environ.get("RANK", "0") == "0":
        print(f"{result.steps} steps done: {result.model_file}", file=sys.stderr)
    return 0
