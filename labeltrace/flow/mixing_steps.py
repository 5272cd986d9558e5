"""Steps that mix positions by weights: matrices, attention, kernels, resampling, recurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from labeltrace.flow.flow import OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import MixingEquation


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix(OneSourceStep):
    """`Y <- Norm(W)·Y` with the matrices in `weights`, eq. 7 and 9.

    `equation` names the axes of weights, labels and result.  `rows_sum_to_one` says that each row
    of the weights is a distribution already, the outcome of a softmax.
    """

    weights: Operand
    equation: MixingEquation
    rows_sum_to_one: bool = False
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend(OneSourceStep):
    """A `Mix` by the probabilities of fused attention, which are computed from queries and keys.

    The weights of `equation` are the probabilities.  `joint` says that one call of the model's
    kernel may compute its output and the labels.
    """

    query: Operand
    key: Operand
    value: Operand
    mask: Operand | None
    is_causal: bool
    scale: float | None
    grouped_heads: bool
    equation: MixingEquation
    joint: bool = False
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearMix(OneSourceStep):
    """`Norm(|q|·|k|^T)·Y` in linear time; `equation` names the axes of q, k, Y and result."""

    query: Operand
    key: Operand
    equation: LinearMixingEquation
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolve(OneSourceStep):
    """Mixing by a convolution's kernel; the labels have one batch dimension, then space.

    Where the input's channel axis has positions (those of a space-to-depth stem), they are the
    first dimension of space, and ``channel_blocks`` says of which factors that axis is made: the size of
    each, and whether it is a position.  ``channels_per_sample`` is not zero where each sample has a kernel of its
    own, which stand one after the other: how many output channels each of them has.
    """

    weights: Operand
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    channel_blocks: tuple[tuple[int, bool], ...] = ()
    channels_per_sample: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolveTransposed(OneSourceStep):
    """Mixing by the kernel of a transposed convolution; ``sizes`` are those of the result."""

    weights: Operand
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample(OneSourceStep):
    """Mixing by the weights of an interpolation to ``sizes``, axis by axis of space.

    ``scales`` are the factors that the model gave, or None; ``mode`` is ``"nearest"``,
    ``"nearest-exact"``, ``"linear"`` or ``"cubic"``.
    """

    sizes: tuple[int, ...]
    scales: tuple[float | None, ...]
    mode: str
    align_corners: bool
    antialias: bool
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Recur(OneSourceStep):
    """Each step of dimension ``dim`` mixes those up to it, ``layers`` times over.

    ``bidirectional`` averages that with the mixing of those from it on.  The last ``feature_dims``
    dimensions of the arranged field, positions among the features, are averaged first.
    """

    dim: int
    layers: int
    bidirectional: bool
    feature_dims: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalStates(OneSourceStep):
    """What the last step of every layer and direction of a :class:`Recur` mixes.

    Dimension ``dim`` goes; layers by directions come first.
    """

    dim: int
    layers: int
    bidirectional: bool
    feature_dims: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(OneSourceStep):
    """A label function of the user's own, called with the labels and then ``tensors``."""

    function: Callable[..., Tensor]
    tensors: tuple[Operand, ...] = ()
