"""Curves of several trainings side by side: prediction loss, and what tells a collapse (std and rank of the latents).

    python benches/compare_runs.py LeWM=T/run PLDM=T/pldm none=T/none --plot objectives.png

Each argument names a run's folder, which holds the metrics.csv of `lewm train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lewm.checkpoint.atomic import write_file
from lewm.figures import new_figure, png
from lewm.training.log import read_metrics

PANELS = {
    "pred_loss": "prediction loss, training",
    "val_pred_loss": "prediction loss, validation",
    "latent_std_mean": "std of the latents",
    "effective_rank": "effective rank",
}
LOGARITHMIC = ("pred_loss", "val_pred_loss", "latent_std_mean")


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, separator, folder = text.partition("=")
    if not separator or not (Path(folder) / "metrics.csv").is_file():
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER of a training, got {text!r}")
    return name, Path(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=named_folder, metavar="NAME=FOLDER")
    parser.add_argument("--plot", type=Path, required=True, metavar="FILE.png")
    arguments = parser.parse_args()

    figure = new_figure(12, 3)
    panels = figure.subplots(1, len(PANELS))
    for name, folder in arguments.runs:
        rows = read_metrics(folder / "metrics.csv")
        for panel, column in zip(panels, PANELS, strict=True):
            measured = [row for row in rows if column in row]
            steps, values = [row["step"] for row in measured], [row[column] for row in measured]
            panel.plot(steps, values, label=name, marker="o" if len(steps) < 10 else None)
    for panel, (column, title) in zip(panels, PANELS.items(), strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("step")
        if column in LOGARITHMIC:
            panel.set_yscale("log")
    panels[0].legend()
    write_file(arguments.plot, png(figure))


if __name__ == "__main__":
    main()
