"""One label step computed for some of its rows, if each row depends on rows of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from labeltrace.flow import (
    AdaptivePool,
    Aggregate,
    Attend,
    Average,
    Convolve,
    ConvolveTransposed,
    Custom,
    FinalStates,
    Flip,
    Fold,
    Join,
    LabelStep,
    LabelView,
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
    Write,
)
from labeltrace.layout import fixed_size, is_dynamic
from labeltrace.rewrites.index_slice import IndexSlice, rows_of

CutLabels = Callable[[LabelView, IndexSlice], LabelView]
"""Gives some rows of labels: a new field with the arrangement that the step asked for."""


def sliced_step(step: LabelStep, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    """The step computing only the indices `cut`; None if it mixes along that dimension.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
    found = _sliced(step, cut, cut_labels)
    return found and replace(found, field_shape=cut.of(step.field_sizes))


def _sliced(step: LabelStep, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    match step:
        case Average():
            sources = [_cut_unless_broadcast(s, cut, cut_labels) for s in step.sources]
            return replace(step, sources=tuple(sources))
        case Mix():
            return _mix(step, cut, cut_labels)
        case Attend():
            return _attend(step, cut, cut_labels)
        case LinearMix():
            return _mix_linear(step, cut, cut_labels)
        case Join():
            return _join(step, cut, cut_labels)
        case Write():
            return None  # which rows land on one is known at run time alone
        case Slice() if cut.dim == step.dim:
            return _slice_of_slice(step, cut)
        case Select():
            outer = cut.along(cut.dim + (cut.dim >= step.dim))
            return replace(step, source=cut_labels(step.source, outer))
        case OneSourceStep():
            if _keeps_indices(step, cut.dim):
                return replace(step, source=cut_labels(step.source, cut))
            return None
    raise _unknown(step)


def _keeps_indices(step: OneSourceStep, dim: int) -> bool:
    """Whether each index of the dimension comes from the same index of the source's."""
    match step:
        case Aggregate():
            return True  # the averaged dimensions are the last ones, which the result lacks
        case Slice() | Take() | Recur():
            return dim != step.dim
        case Roll() | Flip():
            return dim not in step.dims
        case Repeat():
            return step.counts[dim] == 1
        case Pad():
            return step.widths[dim] == (0, 0)
        case Pool() | AdaptivePool() | Fold() | Unfold() | Convolve() | ConvolveTransposed():
            return False  # an index is computed from a window of indices
        case Resample() | FinalStates() | Reindex() | SampleBoxes():
            return False
        case Custom():
            return False  # nothing is known of a user's function
        case Rearrange():
            return False  # those that remain after `fuse_relayouts` split or merge dimensions
    raise _unknown(step)


def _unknown(step: LabelStep) -> TypeError:
    return TypeError(
        f"whether {type(step).__name__} can be computed for some rows is not decided; add a case "
        "to labeltrace.rewrites.slice_step"
    )


def _cut_unless_broadcast(labels: LabelView, cut: IndexSlice, cut_labels: CutLabels) -> LabelView:
    return labels if labels.arrangement.shape[cut.dim] == 1 else cut_labels(labels, cut)


def _mix(step: Mix, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    equation = step.equation
    name = equation.result[cut.dim]
    operand, source = step.weights, step.source
    if name in equation.weight_names:
        if (name,) not in equation.weights:
            return None  # one of several factors of an axis
        operand = rows_of(operand, cut.along(equation.weights.index((name,))))
    if name in equation.labels:
        source = cut_labels(source, cut.along(equation.labels.index(name)))
    return replace(step, weights=operand, source=source)


def _attend(step: Attend, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    equation = step.equation
    name = equation.result[cut.dim]
    if name not in equation.weight_names:
        return replace(step, source=cut_labels(step.source, cut.along(equation.labels.index(name))))
    first_rows = cut.start == 0 and cut.step == 1  # those of a causal mask stay where they are
    if equation.weights[-2] != (name,) or (step.is_causal and not first_rows):
        return None
    query = rows_of(step.query, cut.along(len(step.query.shape) - 2))
    mask = step.mask
    if mask is not None and len(mask.shape) > 1:
        mask = rows_of(mask, cut.along(len(mask.shape) - 2))
    return replace(step, query=query, mask=mask)


def _mix_linear(step: LinearMix, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    equation = step.equation
    name = equation.result[cut.dim]
    if name in equation.key_names:
        return None
    if name not in equation.query_names:
        return replace(step, source=cut_labels(step.source, cut.along(equation.labels.index(name))))
    if name in equation.labels or (name,) not in equation.query:
        return None
    return replace(step, query=rows_of(step.query, cut.along(equation.query.index((name,)))))


def _join(step: Join, cut: IndexSlice, cut_labels: CutLabels) -> LabelStep | None:
    if cut.dim != step.dim:
        whole = [p and _cut_unless_broadcast(p, cut, cut_labels) for p in step.pieces]
        return replace(step, pieces=tuple(whole))
    if cut.step != 1 or -1 in step.sizes or any(map(is_dynamic, step.sizes)):
        return None
    kept: list[tuple[LabelView | None, int]] = []
    start = 0
    for piece, size in zip(step.pieces, map(fixed_size, step.sizes), strict=True):
        low, high = max(cut.start - start, 0), min(cut.stop - start, size)
        start += size
        if low >= high:
            continue
        if piece is not None and (low, high) != (0, size):
            piece = _cut_unless_broadcast(piece, IndexSlice(cut.dim, low, high), cut_labels)
        kept.append((piece, high - low))
    pieces, sizes = zip(*kept, strict=True)
    if len(pieces) == 1 and pieces[0] and pieces[0].arrangement.shape == cut.of(step.field_sizes):
        return Rearrange(layout=step.layout, source=pieces[0])
    if all(piece is None for piece in pieces):
        return None  # the prior alone does not say how many positions there are
    return replace(step, pieces=pieces, sizes=sizes)


def _slice_of_slice(step: Slice, cut: IndexSlice) -> LabelStep | None:
    size = step.source.arrangement.shape[step.dim]
    if any(map(is_dynamic, (size, step.start, step.end or 0))):
        return None
    start, end = fixed_size(step.start), step.end and fixed_size(step.end)
    whole = range(*slice(start, end, step.step).indices(fixed_size(size)))
    indices = whole[cut.start : cut.stop : cut.step]
    return replace(step, start=indices.start, end=indices.stop, step=indices.step)
