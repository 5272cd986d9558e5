"""A training step on a mixed batch: plain, with aligned labels, or with the paper's method."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from dense_labels import DenseLabels
from torch import Tensor, nn

import labeltrace

METHODS = ("plain", "aligned", "paper")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Case:
    """One setting of the benchmark; `precision` is that of autocast, float32 means no autocast."""

    model: str
    batch: int
    resolution: int
    mode: str
    precision: str
    device: str


class TrainingStep:
    """One case: a model, its optimizer and a mixed batch, with a forward pass for each method."""

    def __init__(self, case: Case, methods: Sequence[str]) -> None:
        torch.manual_seed(0)
        self.case = case
        device = torch.device(case.device)
        with device:
            images = torch.rand(case.batch, 3, case.resolution, case.resolution)
            targets = torch.randint(NUM_CLASSES, (case.batch,))
        self.batch = labeltrace.CutMix()(images, targets)
        one_hot = nn.functional.one_hot(self.batch.classes, NUM_CLASSES)
        self.classes = one_hot.to(torch.float32)
        # All methods share parameters and moments: their memory addresses affect the timing.
        self.model = build(case, case.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        forwards = {method: self._forward(method, self.model) for method in methods}
        compiled = case.mode == "compiled"
        self.forwards = {m: torch.compile(f) if compiled else f for m, f in forwards.items()}

    def _forward(self, method: str, model: nn.Module) -> Callable[..., Any]:
        if method == "plain":
            return model
        if method == "aligned":
            return labeltrace.align(model)
        with self._precision():
            return DenseLabels(_copy_sharing_tensors(model), self.batch.images)

    def forward(self, method: str) -> tuple[Tensor, Tensor]:
        """Logits and class targets (B, classes) without smoothing."""
        batch = self.batch
        with self._precision():
            if method == "plain":
                logits, labels = self.forwards[method](batch.images), batch.mixing_ratio
            elif method == "aligned":
                logits, labels = self.forwards[method](batch.images, batch.labels)
            else:
                return self.forwards[method](batch.images, batch.labels, self.classes)
        return logits, (labels[:, None] @ self.classes)[:, 0]

    def step(self, method: str) -> None:
        """Forward pass, backward pass and optimizer step."""
        logits, targets = self.forward(method)
        targets = targets * 0.9 + 0.1 / NUM_CLASSES
        labeltrace.soft_cross_entropy(logits, targets).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def check_methods(self) -> None:
        """Check that the paper's method and aligned labels compute the same targets."""
        if not {"aligned", "paper"} <= self.forwards.keys():
            return
        torch.manual_seed(0)
        _, aligned = self.forward("aligned")
        torch.manual_seed(0)
        _, paper = self.forward("paper")
        tolerance = 1e-4 if self.case.precision == "float32" else 1e-2
        torch.testing.assert_close(aligned, paper, atol=tolerance, rtol=0)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        dtype = PRECISIONS[self.case.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.case.device, dtype=dtype)


def build(case: Case, device: str) -> nn.Module:
    """The model of a case, with its image size set to that of the case."""
    config = timm.get_pretrained_cfg(case.model)
    sized = config is not None and config.fixed_input_size
    own = config is None or config.input_size[-1] == case.resolution
    settings = {"img_size": case.resolution} if sized and not own else {}
    with torch.device(device):
        return timm.create_model(case.model, num_classes=NUM_CLASSES, **settings)


def _copy_sharing_tensors(model: nn.Module) -> nn.Module:
    """A copy of a model that shares parameters and buffers, but not settings."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
