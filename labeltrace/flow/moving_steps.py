"""Steps that move positions and mix nothing: reorder, slice, repeat, pad, concatenate, unfold."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.flow import LabelStep, LabelView, OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.layout import Size, SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrange(OneSourceStep):
    """The field in another order of dimensions, as a new field."""

    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(OneSourceStep):
    """`start:end:step` of dimension `dim`; negative indices count from the end, None is the end."""

    dim: int
    start: Size
    end: Size | None
    step: int
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(OneSourceStep):
    """Index `index` of dimension `dim`, which is removed."""

    dim: int
    index: Size
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(OneSourceStep):
    """Each dimension repeated `counts` times: `0 1 0 1`, or `0 0 1 1` with `interleave`."""

    counts: tuple[Size, ...]
    interleave: bool
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll(OneSourceStep):
    """Dimensions `dims` rolled by `shifts`, as `torch.roll` does."""

    shifts: tuple[Size, ...]
    dims: tuple[int, ...]
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip(OneSourceStep):
    """Dimensions `dims` reversed."""

    dims: tuple[int, ...]
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Take(OneSourceStep):
    """Indices of dimension `dim`, selected by a constant tensor of integers or a boolean mask."""

    dim: int
    index: Operand
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(OneSourceStep):
    """New positions around a field.

    Attributes:
        widths: how many positions are added (before, after) each dimension; negative widths crop.
        mode: what new positions carry: `"prior"`, or copies of other labels as the operator copies
            values: `"reflect"`, `"replicate"` or `"circular"`.
    """

    widths: tuple[tuple[Size, Size], ...]
    mode: str
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfold(OneSourceStep):
    """Dimensions cut into windows, which may overlap.

    Each of `dims` becomes two dimensions: the windows, and the positions in a window. `windows`
    has one entry for each of `dims`. Their padding is symmetric and carries the prior.
    `copies`, if not empty, says for each of `dims` how often this
    dimension, of size one, is repeated before it is cut.
    """

    dims: tuple[int, ...]
    windows: tuple[SlidingWindow, ...]
    copies: tuple[Size, ...] = ()
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(LabelStep):
    """Fields concatenated along dimension `dim`.

    Attributes:
        pieces: the fields in order; None for a piece that carries the prior.
        sizes: the size of each piece along `dim`; -1 for the size that its labels have there.
        dim: the dimension along which they are concatenated.
    """

    pieces: tuple[LabelView | None, ...]
    sizes: tuple[Size, ...]
    dim: int
    operation: Operation = Operation.RELAYOUT

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return tuple(piece for piece in self.pieces if piece is not None)
