"""The command line. Each command is a module here with ``add_arguments(parser)`` and ``run(args) -> int | None``."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
from collections.abc import Sequence

import lewm
from lewm._version import __version__

# Command -> (module, one line of help, extra that brings what it imports).
_COMMANDS = {
    "quickstart": ("lewm.cli.quickstart", "collect, train, plan and report in one environment", "all"),
    "collect": ("lewm.cli.collect", "record episodes of an environment into an HDF5 file", "train,envs"),
    "train": ("lewm.cli.train", "train a world model on recorded episodes", "train"),
    "export": ("lewm.cli.export", "write a checkpoint as one deployment file", ""),
    "plan": ("lewm.cli.plan", "plan from one image to another", ""),
    "eval": ("lewm.cli.eval", "success rates under the paper's and the strict protocol", "train,envs,viz"),
    "probe": ("lewm.cli.probe", "probe the latents for physical quantities", "all"),
    "surprise": ("lewm.cli.surprise", "test whether impossible events surprise the model", "all"),
    "report": ("lewm.cli.report", "put everything about a run into one HTML file", "all"),
    "decode": ("lewm.cli.decode", "draw what the model imagines", "all"),
    "bench": ("lewm.cli.bench", "time encoding, rollouts and plans on this machine", ""),
    "doctor": ("lewm.cli.doctor", "what this build and machine can do, and what is missing", ""),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    _open_closed_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        return _run(argv, chosen)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (lewm.Error, ValueError, TypeError, OverflowError, MemoryError, OSError, ImportError) as error:
        program = "lewm" if chosen is None else f"lewm {chosen}"
        print(f"{program}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1


def _open_closed_streams() -> None:
    """Puts the null device where a standard stream is closed: the next file to be opened would take its descriptor, and
    with it what libraries print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _run(argv: list[str], chosen: str | None) -> int:
    parser = argparse.ArgumentParser(
        prog="lewm", description="Train LeWorldModel and plan in its latent space."
    )
    parser.add_argument("--version", action="version", version=f"lewm {__version__}")
    parser.add_argument(
        "--cmake-dir", action="version", version="", help="print the CMake package folder and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    if argv[:1] == ["--cmake-dir"]:
        print(lewm.cmake_dir())
        return 0
    module = None
    for name, (path, summary, extra) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # only the chosen command's module is imported: `lewm --help` needs numpy alone
            try:
                module = importlib.import_module(path)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("lewm"):
                    raise
                hint = f": pip install 'lewm[{extra}]'" if extra else ""
                print(f"lewm {name} needs {error.name}{hint}", file=sys.stderr)
                return 1
            module.add_arguments(command)
    args, rest = parser.parse_known_args(argv)
    if rest and hasattr(args, "settings") and not any(word.startswith("-") for word in rest):
        args.settings += rest  # argparse leaves over the words of a list that stand behind an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    assert module is not None  # argparse has refused anything else
    args.command_line = shlex.join(["lewm", *argv])
    # What a terminal cannot show must not end a command whose work is done.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return int(module.run(args) or 0)
