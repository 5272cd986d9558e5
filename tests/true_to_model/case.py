"""What a case consists of: a model, its calls, what changes between them, and its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH, CHANNELS, ROWS, COLUMNS, PATCH, WIDTH, SOURCES = 2, 3, 10, 14, 2, 11, 13
GRID = (ROWS // PATCH, COLUMNS // PATCH)


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """What a replica of labels may look at: the state after a call of the plain model."""

    model: Any
    inputs: tuple[Any, ...]
    outputs: Any
    labels: Tensor


Replica = Callable[[Seen], Any]
"""The labels of the outputs, in their structure; None where they are not computed by hand."""


def images(index: int) -> tuple[Any, ...]:
    """A batch of images that requires a gradient; another one for each call."""
    return (pictures(index).requires_grad_(),)


def constant_images(index: int) -> tuple[Any, ...]:
    return (pictures(index),)


def pictures(index: int, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(batch, CHANNELS, ROWS, COLUMNS, generator=generator)


def nothing(model: Any, index: int) -> None:
    """Change nothing between calls."""


def no_context(index: int) -> AbstractContextManager[Any]:
    return nullcontext()


def no_keywords(index: int) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Case:
    """One model and its calls.

    build: makes the model; everything that calls may change is made anew.
    calls: how many there are. The functions below get the number of the call, from 0.
    inputs: the positional arguments, made anew for each twin.
    keywords: the keyword arguments.
    change: what changes before each call but the first.
    context: what the call runs in; the backward pass runs outside.
    labels: an independent computation of the labels.
    loss: what the backward pass starts from; by default a weighted sum of all outputs.
    unlabeled: the leaves of the outputs that have no label, by index.
    refuses: the words of the error in the place of labels; the model must be right all the same.
    """

    name: str
    build: Callable[[], nn.Module]
    calls: int = 3
    inputs: Callable[[int], tuple[Any, ...]] = images
    keywords: Callable[[int], Mapping[str, Any]] = no_keywords
    change: Callable[[Any, int], None] = nothing
    context: Callable[[int], AbstractContextManager[Any]] = no_context
    labels: Replica | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    unlabeled: tuple[int, ...] = ()
    refuses: str = ""


CASES: dict[str, Case] = {}


def twin(**settings: Any) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Make a case of the function that builds its model; the fields are those of `Case`."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert build.__name__ not in CASES, build.__name__
        CASES[build.__name__] = Case(build.__name__, build, **settings)
        return build

    return register


class Patches(nn.Module):
    """Images to patches (B, 11, 5, 7), then what a function makes of them.

    The function gets the module and the patches. Layers and other attributes are given by name.
    """

    def __init__(self, function: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CHANNELS, WIDTH, PATCH, PATCH)
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.stem(x))


# Labels, by hand.


def patches(seen: Seen) -> Tensor:
    """The labels of a map of patches: the mean over the pixels of each."""
    return F.avg_pool2d(seen.labels, PATCH)


def tokens(seen: Seen) -> Tensor:
    return patches(seen).flatten(2).mT


def prior(seen: Seen) -> Tensor:
    """The labels of what sees all patches alike."""
    return seen.labels.mean((2, 3))


def each(replica: Replica) -> Replica:
    """The same labels for all tensors among the outputs."""

    def labels(seen: Seen) -> Any:
        expected = replica(seen)
        leaf = lambda value: expected if isinstance(value, Tensor) else None  # noqa: E731
        return torch.utils._pytree.tree_map(leaf, seen.outputs)

    return labels
