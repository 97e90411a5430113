"""The model of a run: made from its settings, kept where no deployment file can hold it, and loaded again."""

from __future__ import annotations

import os
from pathlib import Path

from lewm.checkpoint.contents import Scaling
from lewm.errors import Error
from lewm.nn import LeWM
from lewm.nn.cloner import Cloner
from lewm.nn.external import encoder_from
from lewm.training.checkpoints import read_checkpoint, require_state, write_checkpoint
from lewm.training.config import CLONING, TrainConfig, make_config

__all__ = ["MODEL_FILE", "load_trained", "make_model", "save_trained"]

MODEL_FILE = "model.pt"


def make_model(config: TrainConfig, action_scaling: Scaling | None) -> LeWM | Cloner:
    """The untrained model that the settings describe."""
    encoder = encoder_from(config.encoder) if config.encoder else None
    if config.objective == CLONING:
        return Cloner(
            config.model,
            attention=config.attention,
            action_scaling=action_scaling,
            encoder=encoder,
            freeze_encoder=config.freeze_encoder,
            position_init=config.position_init,
        )
    return LeWM(
        config.model,
        dropout=config.dropout,
        emb_dropout=config.emb_dropout,
        attention=config.attention,
        action_scaling=action_scaling,
        encoder=encoder,
        freeze_encoder=config.freeze_encoder,
        position_init=config.position_init,
    )


def save_trained(model: LeWM | Cloner, folder: Path) -> Path:
    """Writes the weights as ``model.pt`` into the folder of a run, and returns the file."""
    path = folder / MODEL_FILE
    write_checkpoint(path, {"model": model.state_dict(), "action_scaling": model.action_scaling})
    return path


def load_trained(run: str | os.PathLike[str]) -> LeWM | Cloner:
    """The trained model in the folder of a run that wrote a ``model.pt``, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: the folder has no finished model of this kind.
        lewm.Error: the file is damaged, or another model's.
    """
    folder = Path(run)
    for name in ("config.yaml", MODEL_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: expected the folder of a finished run, it has no {name}")
    path = folder / MODEL_FILE
    content = read_checkpoint(path)
    settings = make_config(folder / "config.yaml")
    try:
        model = make_model(settings, content.get("action_scaling"))
    except ValueError as error:
        raise Error(f"{path}: not a model of the settings beside it: {error}") from None
    require_state(model, content.get("model"), path)
    model.load_state_dict(content["model"])
    return model.eval()
