"""Flows: the closed set of ways in which labels move through one operator.

A rule looks at one call and returns one :class:`Flow` for each of its outputs.  A flow is data: the
operation of the paper's Table 10 that the step amounts to, the layout of the output, and what the
label graph has to compute (for most steps: nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from torch import Tensor

from labeltrace.layout import Arrangement, Layout


class Operation(StrEnum):
    """What a node does, by what it contracts: Table 10 of the paper and four helper classes."""

    SPATIAL_MIXING = "spatial mixing"
    CHANNEL_MIXING = "channel mixing"
    POINTWISE = "pointwise"
    RESIDUAL = "residual"
    SPATIAL_AGGREGATION = "spatial aggregation"
    RELAYOUT = "relayout"
    """Positions are reordered, cut, padded or joined, and nothing is mixed."""
    WEIGHTS = "weights"
    """Mixing weights in the making: scores, masks, biases on scores (contract, point 9)."""
    PARTIAL_SUM = "partial sum"
    """A sum that is but a part of a larger one, which counts as the residual."""
    CONSTANT = "constant"
    """Nothing that comes from the image: parameters, masks, random draws, sizes."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor argument of a call, as a rule sees it.

    ``path`` locates it among the call's arguments: the schema's name, then indices into lists.
    ``layout`` is None for constants.  ``field`` stands for the operand's label field: operands with
    equal fields and layouts have equal labels; a traced operand without one is mixing weights.
    ``tensor`` stands for its values, which rules never see.
    ``is_gate`` says that its last non-linear step was a sigmoid, softmax, tanh or the like, which
    makes it a gate in products; no value is below ``lower_bound``; ``holds_key_features`` says that some of its
    positions are features of keys, gathered over the tokens for queries to choose from.
    ``pending`` weights are keys times values, summed over positions: see
    :mod:`labeltrace.rule_helpers.linear_attention`.  ``product``: of a product, see :class:`Factors`.
    """

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    field: object = None
    tensor: object = None
    is_gate: bool = False
    lower_bound: float = -inf
    holds_key_features: bool = False
    key_value_product: object = None
    product: ProductOperands | None = None

    @property
    def traced(self) -> bool:
        return self.layout is not None

    @property
    def labelled(self) -> bool:
        return self.field is not None

    @property
    def is_weights(self) -> bool:
        return self.traced and not self.labelled

    @property
    def nonnegative(self) -> bool:
        """Whether no value is known to be below zero."""
        return self.lower_bound >= 0

    @property
    def traced_layout(self) -> Layout:
        """The layout of a traced operand.

        Raises:
            TypeError: the operand is a constant, which has none (a fault of the rule).
        """
        if self.layout is None:
            raise TypeError(f"argument {self.name} is a constant and has no layout")
        return self.layout

    @property
    def name(self) -> str:
        """The argument as a person writes it, ``tensors[2]``."""
        first, *rest = self.path
        return str(first) + "".join(f"[{index}]" for index in rest)


@dataclass(frozen=True, slots=True)
class ProductOperands:
    """The two operands of a product: streams, or one and its weights (:mod:`labeltrace.rule_helpers.weighted_sum`).

    ``axes_unchanged`` says that the product's axes are theirs still, so that a sum over positions can mix.
    """

    first: Operand
    second: Operand
    axes_unchanged: bool = True

    def after_other_step(self) -> ProductOperands:
        """The factors after a step on their product."""
        return replace(self, axes_unchanged=False)


def product_after_other_step(operands: Iterable[Operand]) -> ProductOperands | None:
    """The factors of the first product among operands, after a step on them; None without one."""
    return next(
        (one.product.after_other_step() for one in operands if one.product is not None), None
    )


@dataclass(frozen=True, slots=True)
class LabelView:
    """The label field of one operand, with the dimensions that a step needs."""

    operand: Operand
    arrangement: Arrangement


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the label of one output comes about; see the subclasses.

    ``is_gate`` sets whether the output is a gate; None means as its labelled input.
    No value of the output is below ``lower_bound``; None means as the input's, for steps that only move
    values, else that nothing is known.  ``holds_key_features``: see :class:`Operand`; None means as the
    inputs'.
    ``approximation`` is empty for an exact step, else the reason why it is not.
    ``as_weights`` is the same output read as mixing weights, or as keys times values: which of
    the two it is shows only at a later product.  ``product``: see :class:`Operand`.
    """

    operation: Operation
    layout: Layout | None
    is_gate: bool | None = None
    lower_bound: float | None = None
    holds_key_features: bool | None = None
    approximation: str = ""
    as_weights: Weights | None = None
    product: ProductOperands | None = None

    @property
    def labels(self) -> tuple[LabelView, ...]:
        """The label fields that the step reads."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Flow):
    """The output does not come from the image."""

    operation: Operation = Operation.CONSTANT
    layout: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(Flow):
    """The output is mixing weights: it has positions and no label.

    ``before_dropout`` names the operand whose values labels are to use instead of the output's: the
    probabilities before dropout.  ``key_value_product``: see :class:`Operand`.
    """

    layout: Layout
    operation: Operation = Operation.WEIGHTS
    before_dropout: Operand | None = None
    key_value_product: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry(Flow):
    """The output has the operand's label field, seen through another layout; nothing to do."""

    layout: Layout
    source: Operand


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStep(Flow):
    """A flow whose label is computed: ``layout`` is over a fresh field.

    ``field_shape`` has the sizes of that field's dimensions where they are coarser than the layout's
    positions: neighbouring positions stand in one dimension.
    """

    layout: Layout
    field_shape: tuple[int, ...] | None = None

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """The sizes of the computed field's dimensions, K left out."""
        return self.layout.field_sizes if self.field_shape is None else self.field_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSourceStep(LabelStep):
    """A step that reads the labels of one operand."""

    source: LabelView

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrange(OneSourceStep):
    """The field in another order of dimensions, as a fresh field."""

    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix(OneSourceStep):
    """``Y <- Norm(W)·Y`` with the matrix in ``weights``, eq. 7 and 9.

    ``notation`` names the axes of the weights and of the labels, as in
    ``"b h q k, b k -> b q"``; ``sizes`` those of names inside parentheses.  ``rows_sum_to_one`` says that
    each row of the weights is a distribution already, the outcome of a softmax.
    """

    weights: Operand
    notation: str
    sizes: tuple[tuple[str, int], ...] = ()
    rows_sum_to_one: bool = False
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend(OneSourceStep):
    """:class:`Mix` with the probabilities of fused attention, from queries and keys.

    ``joint`` says that the model's own call may compute the labels beside its output.
    """

    query: Operand
    key: Operand
    value: Operand
    mask: Operand | None
    is_causal: bool
    scale: float | None
    grouped_heads: bool
    notation: str
    sizes: tuple[tuple[str, int], ...] = ()
    joint: bool = False
    operation: Operation = Operation.SPATIAL_MIXING


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearMix(OneSourceStep):
    """``Norm(|q|·|k|^T)·Y`` in linear time; the notation names the axes of q, k, Y and result.

    ``heads`` are the names whose matrices are averaged.
    """

    query: Operand
    key: Operand
    notation: str
    heads: str = ""
    sizes: tuple[tuple[str, int], ...] = ()
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
class Pool(OneSourceStep):
    """Equal weights over the positions of a window that lie inside the image."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePool(OneSourceStep):
    """Equal weights over windows that tile the image into ``output_size`` positions."""

    output_size: tuple[int, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(OneSourceStep):
    """The mean over the last ``count`` dimensions of the arranged field."""

    count: int
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(LabelStep):
    """``Norm(sum_i s_i Y_i)`` over broadcast label fields with the given shares."""

    sources: tuple[LabelView, ...]
    shares: tuple[int, ...]

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return self.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(OneSourceStep):
    """``start:end:step`` of dimension ``dim``: below zero from its end, None is the end."""

    dim: int
    start: int
    end: int | None
    step: int
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(OneSourceStep):
    """Index ``index`` of dimension ``dim``, which goes."""

    dim: int
    index: int
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(OneSourceStep):
    """Dimensions several times: the whole one after the other, or each index by itself."""

    counts: tuple[int, ...]
    interleave: bool
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll(OneSourceStep):
    """Dimensions rolled by ``shifts``."""

    shifts: tuple[int, ...]
    dims: tuple[int, ...]
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip(OneSourceStep):
    """Dimensions reversed."""

    dims: tuple[int, ...]
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Take(OneSourceStep):
    """Indices of dimension ``dim`` chosen by an integer or boolean tensor that is a constant."""

    dim: int
    index: Operand
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(OneSourceStep):
    """New positions before and after: ``widths`` a dimension; ``batch_dim`` is the batch's.

    With ``mode`` ``"prior"`` they carry the prior; ``"reflect"``, ``"replicate"`` and
    ``"circular"`` copy labels as the operator copies values.
    """

    widths: tuple[tuple[int, int], ...]
    mode: str
    batch_dim: int
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfold(OneSourceStep):
    """Dimensions cut into windows, which may overlap: each becomes windows by positions in them.

    ``padding`` is as wide before as after and carries the prior; ``batch_dim`` is the batch's.
    ``copies``, where given, says how often each of ``dims``, of size one, is repeated before.
    """

    dims: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    batch_dim: int
    copies: tuple[int, ...] = ()
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold(OneSourceStep):
    """Windows laid over one another: the mean of what lands on each position of ``sizes``.

    The labels have one batch dimension, one of the positions in a window and one of the windows.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION


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
class Join(LabelStep):
    """Pieces one after the other along dimension ``dim``; a piece None carries the prior.

    ``sizes`` are the pieces' sizes along ``dim``, -1 for a dynamic one; ``batch_dim`` is the
    batch's dimension.
    """

    pieces: tuple[LabelView | None, ...]
    sizes: tuple[int, ...]
    dim: int
    batch_dim: int
    operation: Operation = Operation.RELAYOUT

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return tuple(piece for piece in self.pieces if piece is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(OneSourceStep):
    """A label function of the user's own, called with the labels and then ``tensors``."""

    function: Callable[..., Tensor]
    tensors: tuple[Operand, ...] = ()
