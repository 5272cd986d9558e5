"""Steps that move positions and mix nothing: reorder, slice, repeat, pad, join, cut windows."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.flow import LabelStep, LabelView, OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.layout import SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrange(OneSourceStep):
    """The field in another order of dimensions, as a fresh field."""

    operation: Operation = Operation.RELAYOUT


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
    """Dimensions cut into windows, which may overlap.

    Each of `dims` becomes two dimensions: the windows, and the positions in a window.  `windows`
    has one entry for each of `dims`.  Their padding is symmetric and carries the prior; `batch_dim`
    is the dimension of the batch.  `copies`, if not empty, says for each of `dims` how often this
    dimension, of size one, is repeated before it is cut.
    """

    dims: tuple[int, ...]
    windows: tuple[SlidingWindow, ...]
    batch_dim: int
    copies: tuple[int, ...] = ()
    operation: Operation = Operation.RELAYOUT


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
