"""What an architecture is made of: the activation between stages, a stage, a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from torch import nn

IMAGE_CHANNELS = 2


class Promise(IntEnum):
    """How the sources that labels give a position compare with those of the Jacobian.

    Stages in a row promise what the least of them does.

    EQUAL: they are the same.
    SOUND: every source is one of the Jacobian's, which may have more: labels ignore gates
        (contract, point 8), and normalization over positions is point-wise (point 5).
    NONE: labels belong to whole positions although channels hold different content (a split
        after a concatenation, point 7), or the rule is an approximation (max pooling).
    """

    NONE = 0
    SOUND = 1
    EQUAL = 2


@dataclass(frozen=True, slots=True)
class State:
    """The activation between two stages: a map (B, C, rows, columns) or tokens (B, N, C).

    channels: the number of its channels.
    space: its sizes along positions: (rows, columns) of a map, (N,) of tokens.
    blended: its channels come from several streams, and no layer has mixed them since.
    """

    channels: int
    space: tuple[int, ...]
    blended: bool = False

    @property
    def is_map(self) -> bool:
        return len(self.space) == 2

    @property
    def channel_dim(self) -> int:
        return 1 if self.is_map else 2

    @property
    def position_dims(self) -> tuple[int, ...]:
        return (2, 3) if self.is_map else (1,)


@dataclass(frozen=True, slots=True)
class Stage:
    """A piece of a model, the activation that it leaves and what it promises.

    prior: whether it adds positions that do not come from the image, such as a class token.
    names: the functions that drew it, and those of the stages inside it.
    """

    module: nn.Module
    state: State
    promise: Promise = Promise.EQUAL
    prior: bool = False
    names: tuple[str, ...] = ()


def composed(
    module: nn.Module,
    state: State,
    inner: Sequence[Stage],
    promise: Promise = Promise.EQUAL,
) -> Stage:
    """A stage around other stages: it promises no more than any of them."""
    return Stage(
        module,
        state,
        promise=min(promise, *(stage.promise for stage in inner)),
        prior=any(stage.prior for stage in inner),
        names=tuple(name for stage in inner for name in stage.names),
    )


def named(stage: Stage, name: str, promise: Promise) -> Stage:
    """The stage with the name of the function that drew it, and with at most its promise."""
    return replace(stage, promise=min(stage.promise, promise), names=(name, *stage.names))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model over images (B, 2, rows, columns).

    channel_dim: the output's axis of channels.
    promise: how the labels of the output compare with the Jacobian.
    prior: whether some positions do not come from the image.
    names: the functions that drew its stages.
    """

    model: nn.Module
    image_size: tuple[int, int]
    channel_dim: int
    promise: Promise
    prior: bool = False
    names: tuple[str, ...] = ()
