"""Steps that mix positions: by matrices, attention, kernels, interpolation or recurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from labeltrace.flow.flow import OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.layout import Size, SlidingWindow


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
    """Mixing by the kernel of a convolution; the labels have one batch dimension, then space.

    Attributes:
        weights: the weight of the convolution, (out, in / groups, *kernel).
        windows: how the kernel slides, one entry for each dimension of space.
        channel_blocks: the factors of the input's channel axis if it has positions (a
            space-to-depth stem): (size, whether it is a position).  These positions are the first
            dimension of space.  Empty otherwise.
        channels_per_sample: the output channels per sample if every sample has its own kernel
            (CondConv), stacked along the output axis; 0 for a shared kernel.
    """

    weights: Operand
    windows: tuple[SlidingWindow, ...]
    channel_blocks: tuple[tuple[int, bool], ...] = ()
    channels_per_sample: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolveTransposed(OneSourceStep):
    """Mixing by the kernel of a transposed convolution, as torch's `conv_transpose` applies it.

    Attributes:
        weights: the weight of the convolution, (in, out / groups, *kernel).
        windows: how the kernel slides over the result, one entry for each dimension of space; the
            padding is symmetric.
        output_padding: how many positions are added at the end of each dimension of the result.
        groups: the groups of the convolution.
    """

    weights: Operand
    windows: tuple[SlidingWindow, ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample(OneSourceStep):
    """Mixing by the weights of an interpolation to `sizes`, one axis of space after the other.

    `scales` are the factors that the model gives, or None; `mode` is `"nearest"`,
    `"nearest-exact"`, `"linear"` or `"cubic"`.
    """

    sizes: tuple[Size, ...]
    scales: tuple[float | None, ...]
    mode: str
    align_corners: bool
    antialias: bool
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Recur(OneSourceStep):
    """Each step of dimension `dim` is the mean of the steps up to it, `layers` times.

    `bidirectional` averages that with the mean of the steps from it on.  The last `feature_dims`
    dimensions of the arranged field, positions among the features, are averaged first.
    """

    dim: int
    layers: int
    bidirectional: bool
    feature_dims: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalStates(OneSourceStep):
    """The final state of every layer and direction of the layers that `Recur` describes.

    Dimension `dim` is removed; a dimension of layers * directions comes first.
    """

    dim: int
    layers: int
    bidirectional: bool
    feature_dims: int = 0
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(OneSourceStep):
    """A label function of the user, called with the labels and then `tensors`."""

    function: Callable[..., Tensor]
    tensors: tuple[Operand, ...] = ()
