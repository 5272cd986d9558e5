"""What a capture must not change: random state, plain attributes of modules, shown warnings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize


@contextlib.contextmanager
def restore_side_effects(model: nn.Module) -> Iterator[None]:
    """Restore the random state and the modules' plain attributes, whatever the export did.

    Parametrized weights are computed for the export alone: none of them gets into the cache of
    `torch.nn.utils.parametrize.cached`.
    """
    plain = (bool, int, float, str)
    before = [
        (module, {name: value for name, value in vars(module).items() if type(value) in plain})
        for module in model.modules()
    ]
    cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[index for index in devices if index is not None]):
        try:
            yield
        finally:
            parametrize._cache_enabled = cached
            for module, attributes in before:
                vars(module).update(attributes)


@contextlib.contextmanager
def suppress_rnn_warnings() -> Iterator[None]:
    """No warning that recurrent layers assign their lists of weights: an export restores them."""
    with warnings.catch_warnings():
        weights = r"(self\.[\w.]*_flat_weights\[\d+\](, )?)+"
        message = rf"The tensor attributes? {weights} (was|were) assigned during export"
        warnings.filterwarnings("ignore", message)
        yield
