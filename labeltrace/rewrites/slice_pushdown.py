"""Slice pushdown: if only some rows of a field are read, only those are computed.

A vision transformer's classifier reads the class token, so its last block's label is needed for
that token alone: one row of the average, one query of the attention. In general: if all readers of
a field are slices along its dimensions, and the step that computes it computes each index from rows
of its own, the step is replaced by one that computes the slice. Its sources are then read by slices
as well, and the same is tried for the steps that compute them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from labeltrace.flow import LabelField, LabelStep, LabelView, Rearrange, Select, Slice
from labeltrace.layout import Layout, Size, fixed_size
from labeltrace.rewrites.index_slice import IndexSlice, cut_arrangement, slice_read_by
from labeltrace.rewrites.slice_step import sliced_step
from labeltrace.rewrites.steps import Steps, as_stored, needed_fields

MAX_SHARE_READ = 0.5
"""The largest share of a field's rows for which slicing its step is worth the added steps."""


def push_slices(steps: Steps, outputs: frozenset[LabelField]) -> Steps:
    """Compute only the slices of fields that are read; the labels of outputs stay equal."""
    return _SlicePushdown(steps, outputs).run()


class _SlicePushdown:
    """One pass from the last field to the first.

    Attributes:
        steps: the steps so far.
        order: the fields of the steps before the pass.
        inserted: new fields, by the field that they are computed before.
        readers: the fields whose steps read a field.
    """

    def __init__(self, steps: Steps, outputs: frozenset[LabelField]) -> None:
        self.steps = dict(steps)
        self.order = list(steps)
        self.outputs = outputs
        self.inserted: dict[LabelField, list[LabelField]] = {}
        self.numbers = itertools.count(1 + max((field.output for field in steps), default=0))
        self.readers: dict[LabelField, list[LabelField]] = {}
        needed = needed_fields(steps, outputs)
        for field in self.order:
            if field in needed:
                self._register_reader(field)

    def run(self) -> Steps:
        for field in reversed(self.order):
            if cuts := self._slices_read(field):
                self._replace_by_slices(field, cuts)
        ordered = (f for field in self.order for f in (*self.inserted.get(field, ()), field))
        return {field: self.steps[field] for field in ordered}

    def _register_reader(self, field: LabelField) -> None:
        for labels in self.steps[field].labels:
            self.readers.setdefault(labels.field, []).append(field)

    def _slices_read(self, field: LabelField) -> dict[LabelField, IndexSlice]:
        """What each reader reads of a field; empty unless all are slices, and small ones."""
        sizes = self.steps[field].field_sizes
        cuts: dict[LabelField, IndexSlice] = {}
        for reader in self.readers.get(field, ()):
            step = self.steps[reader]
            cut = slice_read_by(step, sizes) if isinstance(step, (Slice, Select)) else None
            if cut is None:
                return {}
            cuts[reader] = cut
        read = sum(len(cut.indices) / fixed_size(sizes[cut.dim]) for cut in set(cuts.values()))
        return cuts if field not in self.outputs and 0 < read <= MAX_SHARE_READ else {}

    def _replace_by_slices(self, field: LabelField, cuts: dict[LabelField, IndexSlice]) -> None:
        """Compute each slice that is read as a field of its own; nothing if a step cannot."""
        step = self.steps[field]
        sizes = step.field_sizes
        made: dict[LabelField, LabelStep] = {}
        targets: dict[IndexSlice, LabelField] = {}

        def cut_labels(labels: LabelView, cut: IndexSlice) -> LabelView:
            shape = cut.of(labels.arrangement.shape)
            piece = self._new_field(field)
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
            targets[cut] = self._new_field(field)
            made[targets[cut]] = smaller
        for reader, cut in cuts.items():
            self.steps[reader] = _reading_slice(self.steps[reader], targets[cut], sizes, cut)
        self.steps.update(made)
        self.inserted[field] = list(made)
        for source in {labels.field for labels in step.labels}:
            self.readers[source] = [other for other in self.readers[source] if other != field]
        for new in made:
            self._register_reader(new)

    def _new_field(self, field: LabelField) -> LabelField:
        return LabelField(field.node, next(self.numbers))


def _reading_slice(
    reader: LabelStep, field: LabelField, sizes: tuple[Size, ...], cut: IndexSlice
) -> LabelStep:
    """The step of a reader, once a new field has only the rows that it reads."""
    assert isinstance(reader, (Slice, Select))
    labels = cut_arrangement(reader.source, sizes, cut)
    labels = LabelView(replace(labels.operand, field=field), labels.arrangement)
    if isinstance(reader, Select):
        return replace(reader, source=labels, index=0)
    return Rearrange(layout=reader.layout, field_shape=reader.field_sizes, source=labels)
