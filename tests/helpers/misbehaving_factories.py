"""Factories of models that do to a process what models do, for the sweep to survive.

Nothing but torch is imported: a worker imports this file within the time that a model has.
"""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor, nn


def hanging() -> nn.Module:
    time.sleep(1e6)
    return nn.ReLU()


def crashing() -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    return nn.ReLU()


def leaving() -> nn.Module:
    os._exit(7)


def leave_at_once(*_: object) -> None:
    os._exit(7)


def eating() -> nn.Module:
    kept = []
    while True:
        kept.append(torch.ones(2**25, device="cpu"))  # 128 MiB, written to


class BranchingOnBatch(nn.Module):
    """A graph for two images, another one for any other number."""

    def forward(self, images: Tensor) -> Tensor:
        return (images if len(images) == 2 else images.flip(3)).mean((2, 3))
