"""Where only some rows of a field are read, only those are computed.

A vision transformer's classifier reads the class token, so its last block's label is needed for
that token alone: one row of the average, one query of the attention.  Generally: where all that is
read of a field is slices along its dimensions, and the step behind it computes each index of that
dimension from rows of its own, the step is narrowed to the slice, and so, in turn, are its sources.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from labeltrace.flow import LabelField, LabelStep, LabelView, Rearrange, Select, Slice
from labeltrace.layout import Layout
from labeltrace.rewrites.index_slice import IndexSlice, cut_arrangement, cut_of
from labeltrace.rewrites.slice_step import sliced_step
from labeltrace.rewrites.steps import Steps, as_stored, field_of, needed_fields

MAX_SHARE_READ = 0.5
"""The largest part of a field's rows for which narrowing it is worth the further steps."""


def push_slices(steps: Steps, outputs: frozenset[LabelField]) -> Steps:
    """Steps of whose fields only slices are read compute only these; labels stay what they are."""
    return _Narrowing(steps, outputs).narrow()


class _Narrowing:
    """The state of one pass, from the last field to the first; made for :func:`narrow` alone."""

    def __init__(self, steps: Steps, outputs: frozenset[LabelField]) -> None:
        self.steps = dict(steps)
        self.order = list(steps)
        self.outputs = outputs
        self.before: dict[
            LabelField, list[LabelField]
        ] = {}  # new fields, by that which they precede
        self.numbers = itertools.count(1 + max((field.output for field in steps), default=0))
        self.readers: dict[LabelField, list[LabelField]] = {}
        needed = needed_fields(steps, outputs)
        for field in self.order:
            if field in needed:
                self._enter(field)

    def narrow(self) -> Steps:
        for field in reversed(self.order):
            if cuts := self._cuts(field):
                self._narrow(field, cuts)
        ordered = (f for field in self.order for f in (*self.before.get(field, ()), field))
        return {field: self.steps[field] for field in ordered}

    def _enter(self, field: LabelField) -> None:
        for labels in self.steps[field].labels:
            self.readers.setdefault(field_of(labels), []).append(field)

    def _cuts(self, field: LabelField) -> dict[LabelField, IndexSlice]:
        """What each reader reads of a field; empty unless they are slices, and small ones."""
        sizes = self.steps[field].field_sizes
        cuts: dict[LabelField, IndexSlice] = {}
        for reader in self.readers.get(field, ()):
            step = self.steps[reader]
            cut = cut_of(step, sizes) if isinstance(step, (Slice, Select)) else None
            if cut is None:
                return {}
            cuts[reader] = cut
        read = sum(len(cut.indices) / sizes[cut.dim] for cut in set(cuts.values()))
        return cuts if field not in self.outputs and 0 < read <= MAX_SHARE_READ else {}

    def _narrow(self, field: LabelField, cuts: dict[LabelField, IndexSlice]) -> None:
        step = self.steps[field]
        sizes = step.field_sizes
        made: dict[LabelField, LabelStep] = {}
        targets: dict[IndexSlice, LabelField] = {}

        def cut_labels(labels: LabelView, cut: IndexSlice) -> LabelView:
            shape = cut.of(labels.arrangement.shape)
            piece = self._fresh(field)
            made[piece] = Slice(
                layout=Layout(()),
                field_shape=shape,
                source=labels,
                dim=cut.dim,
                start=cut.start,
                end=cut.stop,
                step=cut.step,
            )
            return as_stored(labels, piece, shape)

        for cut in dict.fromkeys(cuts.values()):
            smaller = sliced_step(step, cut, cut_labels)
            if smaller is None:
                return
            targets[cut] = self._fresh(field)
            made[targets[cut]] = smaller
        for reader, cut in cuts.items():
            self.steps[reader] = _reading(self.steps[reader], targets[cut], sizes, cut)
        self.steps.update(made)
        self.before[field] = list(made)
        for source in {field_of(labels) for labels in step.labels}:
            self.readers[source] = [other for other in self.readers[source] if other != field]
        for new in made:
            self._enter(new)

    def _fresh(self, field: LabelField) -> LabelField:
        return LabelField(field.node, next(self.numbers))


def _reading(
    reader: LabelStep, field: LabelField, sizes: tuple[int, ...], cut: IndexSlice
) -> LabelStep:
    """A slice that finds the rows that it reads, and no others, in a field of their own."""
    assert isinstance(reader, (Slice, Select))
    labels = cut_arrangement(reader.source, sizes, cut)
    labels = LabelView(replace(labels.operand, field=field), labels.arrangement)
    if isinstance(reader, Select):
        return replace(reader, source=labels, index=0)
    return Rearrange(layout=reader.layout, field_shape=reader.field_sizes, source=labels)
