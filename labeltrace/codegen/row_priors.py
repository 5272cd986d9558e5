"""Where the priors of images are in a label field, as data: `labeltrace.codegen.prior_fields`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.fx import Node

from labeltrace.flow import (
    AdaptivePool,
    Aggregate,
    Attend,
    Convolve,
    ConvolveTransposed,
    Custom,
    FinalStates,
    Flip,
    Fold,
    LinearMix,
    Mix,
    OneSourceStep,
    Pad,
    Pool,
    Rearrange,
    Recur,
    Reindex,
    Repeat,
    Resample,
    Roll,
    SampleBoxes,
    Select,
    Slice,
    Take,
    Unfold,
)
from labeltrace.layout import Kind, Size, divides


@dataclass(frozen=True, slots=True)
class Part:
    """A run of indices of a dimension: all of one prior, or each with its own."""

    size: Size
    varies: bool


Dimension = tuple[Part, ...]
"""The parts of one dimension of a field, outermost first."""


@dataclass(frozen=True, slots=True)
class RowPriors:
    """The prior at each position of a label field.

    Attributes:
        node: computes it: a dimension for each part that varies, in order, and the K sources last.
        dims: the parts of each dimension of the field.
    """

    node: Node
    dims: tuple[Dimension, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all dimensions, in order."""
        return tuple(part for dim in self.dims for part in dim)

    def varies(self, dim: int) -> bool:
        """Whether the prior differs along a dimension."""
        return any(part.varies for part in self.dims[dim])

    def only_dim(self) -> int | None:
        """The dimension that the prior differs along, if it is one, and along all of it."""
        varying = [index for index in range(len(self.dims)) if self.varies(index)]
        if len(varying) != 1 or len([part for part in self.parts if part.varies]) != 1:
            return None
        whole = all(part.varies or part.size == 1 for part in self.dims[varying[0]])
        return varying[0] if whole else None


def is_one(dim: Dimension) -> bool:
    """Whether a dimension is a single part that varies."""
    return len(dim) == 1 and dim[0].varies


def size_of(dim: Dimension) -> Size:
    """The number of indices of a dimension."""
    size: Size = 1
    for part in dim:
        size *= part.size
    return size


def cut_parts(parts: Iterable[Part], sizes: Sequence[Size]) -> list[Dimension] | None:
    """Parts cut into dimensions of these sizes; None if they do not nest.

    >>> images, frames = Part(6, True), Part(4, False)
    >>> [[part.size for part in dim] for dim in cut_parts([images, frames], [3, 2, 2, 2])]
    [[3], [2], [2], [2]]
    """
    queue = list(parts)[::-1]
    found: list[Dimension] = []
    for size in sizes:
        dim: list[Part] = []
        need = size
        if size in (0, 1) and queue and queue[-1].size == size:
            dim.append(queue.pop())
            need = 1
        while need != 1:
            if not queue:
                return None
            part = queue.pop()
            if divides(part.size, need):
                dim.append(part)
                need //= part.size
            elif divides(need, part.size):
                dim.append(Part(need, part.varies))
                queue.append(Part(part.size // need, part.varies))
                need = 1
            else:
                return None
        found.append(tuple(dim))
    if found:
        found[-1] += tuple(reversed(queue))
    return found if all(part.size == 1 for part in queue) else None


def kept_dimensions(step: OneSourceStep) -> dict[int, int]:
    """The dimensions of what a step reads whose rows it keeps apart, as dimensions of its result.

    Each row of the result comes from the row of the same index, and from no other one.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
    rank = len(step.source.arrangement.groups)
    every = {dim: dim for dim in range(rank)}
    match step:
        case Rearrange():
            return every
        case Slice() | Take():
            return _without(every, [step.dim])
        case Select():
            return {dim: dim - (dim > step.dim) for dim in every if dim != step.dim}
        case Roll() | Flip():
            return _without(every, step.dims)
        case Repeat():
            return _without(every, [dim for dim in every if step.counts[dim] != 1])
        case Pad():
            return _without(every, [dim for dim in every if step.widths[dim] != (0, 0)])
        case Unfold():
            return {
                dim: dim + sum(cut < dim for cut in step.dims)
                for dim in every
                if dim not in step.dims
            }
        case Aggregate():
            return _without(every, range(rank - step.count, rank))
        case Recur():
            return _without(every, [step.dim, *range(rank - step.feature_dims, rank)])
        case FinalStates():
            last = rank - step.feature_dims
            return {dim: dim + (dim < step.dim) for dim in range(last) if dim != step.dim}
        case Mix() | Attend() | LinearMix():
            labels, result = step.equation.labels, step.equation.result
            return {d: result.index(name) for d, name in enumerate(labels) if name in result}
        case Pool() | AdaptivePool() | Fold() | Convolve() | ConvolveTransposed() | Resample():
            return {0: 0}  # the others are space
        case Reindex():
            return {factor: dim for factor, dim in enumerate(step.elements.dims) if dim >= 0}
        case SampleBoxes():
            return {}
        case Custom():
            return {0: 0} if _starts_with_batch(step) else {}
    raise TypeError(
        f"which rows {type(step).__name__} keeps apart is not decided; add a case to "
        "labeltrace.codegen.row_priors.kept_dimensions"
    )


def _without(dims: dict[int, int], moved: Iterable[int]) -> dict[int, int]:
    left_out = set(moved)
    return {dim: place for dim, place in dims.items() if dim not in left_out}


def _starts_with_batch(step: Custom) -> bool:
    """Whether a step of the user's own keeps the batch as its first dimension."""
    factors = (factor for axis in step.layout.axes for factor in axis)
    return any(factor.field_dim == 0 and factor.kind is Kind.BATCH for factor in factors)
