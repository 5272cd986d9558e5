"""Weights from a file, for a model that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timm.models import clean_state_dict
from torch import Tensor, nn

from labeltrace.errors import TrainingError
from labeltrace.training.atomic_files import read_tensors

SHOWN = 3
NESTED = ("state_dict_ema", "state_dict", "model_ema", "model")  # where timm looks for weights


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint of timm's, or a plain state dict.

    Raises:
        TrainingError: the file cannot be read, or its weights are those of another model.
    """
    saved = read_tensors(path)
    if not isinstance(saved, dict):
        raise TrainingError(f"{path} holds a {type(saved).__name__}, not a model's weights")
    saved = next((saved[name] for name in NESTED if saved.get(name)), saved)
    load_state(model, clean_state_dict(saved), str(path))


def load_state(model: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict that must fit exactly; `name` says where it is from.

    Raises:
        TrainingError: it is that of another model.
    """
    own = model.state_dict()
    shared = own.keys() & saved.keys()
    faults = {
        "lacks": sorted(own.keys() - saved.keys()),
        "has besides": sorted(saved.keys() - own.keys()),
        "has in other sizes": [
            f"{key} {tuple(saved[key].shape)} for {tuple(own[key].shape)}"
            for key in sorted(shared)
            if saved[key].shape != own[key].shape
        ],
    }
    told = [f"it {fault} {_shown(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise TrainingError(f"{name} is a checkpoint of another model: {'; '.join(told)}")
    model.load_state_dict(saved)


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
