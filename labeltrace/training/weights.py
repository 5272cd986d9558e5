"""Load weights from a file into a model that they must fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timm.models import clean_state_dict
from torch import Tensor, nn

from labeltrace.errors import TrainingError
from labeltrace.training.atomic_files import read_tensors

MAX_KEYS_SHOWN = 3
# The keys of a checkpoint where timm looks for weights.
WEIGHT_KEYS = ("state_dict_ema", "state_dict", "model_ema", "model")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a timm checkpoint or a plain state dict.

    Raises:
        TrainingError: the file cannot be read, or its weights belong to another model.
    """
    saved = read_tensors(path)
    if not isinstance(saved, dict):
        raise TrainingError(
            f"{path} holds a {type(saved).__name__}, not a model's weights; give a file with a "
            f"state dict"
        )
    saved = next((saved[name] for name in WEIGHT_KEYS if saved.get(name)), saved)
    load_state(model, clean_state_dict(saved), str(path))


def load_state(model: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict that must fit exactly; `name` names its source in errors.

    Raises:
        TrainingError: it belongs to another model.
    """
    own = model.state_dict()
    shared = own.keys() & saved.keys()
    differences = {
        "lacks": sorted(own.keys() - saved.keys()),
        "has in addition": sorted(saved.keys() - own.keys()),
        "has in other sizes": [
            f"{key} {tuple(saved[key].shape)} for {tuple(own[key].shape)}"
            for key in sorted(shared)
            if saved[key].shape != own[key].shape
        ],
    }
    found = [f"it {verb} {_shorten(keys)}" for verb, keys in differences.items() if keys]
    if found:
        raise TrainingError(
            f"{name} is a checkpoint of another model: {'; '.join(found)}. Give the file of this "
            f"model, or set the model's options as they were when the file was written"
        )
    model.load_state_dict(saved)


def _shorten(keys: list[str]) -> str:
    more = f" and {len(keys) - MAX_KEYS_SHOWN} more" if len(keys) > MAX_KEYS_SHOWN else ""
    return ", ".join(keys[:MAX_KEYS_SHOWN]) + more
