"""The state of the three generators that a model may draw from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class RandomState:
    """The state of torch's, Python's and numpy's own generators."""

    torchs: Tensor
    pythons: tuple[Any, ...]
    numpys: tuple[Any, ...]

    @staticmethod
    def now() -> RandomState:
        numpys = np.random.get_state(legacy=True)
        return RandomState(torch.get_rng_state(), random.getstate(), tuple(numpys))

    @staticmethod
    def seeded(seed: int) -> RandomState:
        before = RandomState.now()
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        state = RandomState.now()
        before.restore()
        return state

    def restore(self) -> None:
        torch.set_rng_state(self.torchs)
        random.setstate(self.pythons)
        np.random.set_state(self.numpys)
