"""What a run says about itself: metrics.csv, TensorBoard events and a progress bar."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lewm.checkpoint.atomic import replace_file
from lewm.errors import Error
from lewm.nn.objectives import PLDM_WEIGHTS

__all__ = ["COLUMNS", "Log", "read_metrics"]

COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "steps_per_second",
    "lr",
    "loss",
    "pred_loss",
    "sigreg_loss",
    *PLDM_WEIGHTS,
    "grad_norm",
    "val_loss",
    "val_pred_loss",
    "val_sigreg_loss",
    "latent_std_min",
    "latent_std_mean",
    "effective_rank",
)
"""Of metrics.csv; a cell is empty where the row's step did not measure it."""


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The complete rows of a metrics.csv, without its empty cells; a last line cut off by a kill is left out.

    Raises lewm.Error for a file that is no such log.
    """
    try:
        text = path.read_text()
        complete = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(complete))
        metrics = [{key: float(value) for key, value in row.items() if value} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise Error(f"{path}: not readable as a training log: {error}") from None
    if not all("step" in row for row in metrics):
        raise Error(f"{path}: expected a training log, with a step in every row")
    return metrics


class Log:
    """Writes rows of metrics as they come.

    Args:
        folder: of the run.
        total, start: steps of the run, and how many of them were done before; later rows are dropped.
    """

    def __init__(self, folder: Path, total: int, start: int, *, tensorboard: bool, progress: bool):
        self._path = folder / "metrics.csv"
        self._keep_rows_until(start)
        self._file = self._path.open("a", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS)
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(
            total=total,
            initial=start,
            disable=not progress,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )

    def _keep_rows_until(self, step: int) -> None:
        rows = read_metrics(self._path) if step and self._path.is_file() else []
        unknown = sorted({name for row in rows for name in row} - set(COLUMNS))
        if unknown:
            raise Error(f"{self._path}: column {unknown[0]!r} is none of this lewm's training logs")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(row | {"step": int(row["step"])} for row in rows if row["step"] <= step)
        with replace_file(self._path) as file:
            file.write(text.getvalue().encode())

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def write(self, row: Mapping[str, float]) -> None:
        """Appends a row (keys from COLUMNS, "step" among them)."""
        self._rows.writerow({key: f"{value:.9g}" for key, value in row.items()})
        self._file.flush()
        shown = {name: f"{row[key]:.4g}" for name, key in _SHOWN.items() if key in row}
        self._bar.set_postfix(shown, refresh=False)
        if self._events is not None:
            for key, value in row.items():
                if key != "step":
                    self._events.add_scalar(key, value, int(row["step"]))

    def say(self, message: str) -> None:
        """Prints a line without breaking the progress bar."""
        if not self._bar.disable:
            self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Closes the files; the log stays as it is."""
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()


_SHOWN = {"pred": "pred_loss", "sigreg": "sigreg_loss", "val": "val_loss"}
