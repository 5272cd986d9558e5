"""The nodes that compute priors: split, repeated, reordered and merged as dimensions need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from labeltrace import label_ops
from labeltrace.codegen.instructions import Instruction
from labeltrace.codegen.row_priors import Part, RowPriors, cut_parts, is_one, size_of
from labeltrace.layout import Arrangement, Size, is_dynamic

Run = Callable[[Instruction], Node]
"""Adds an instruction to the graph; its arguments may be nodes as well."""


class PriorNodes:
    """Adds nodes that give priors other dimensions."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def arranged(self, priors: RowPriors, arrangement: Arrangement) -> RowPriors:
        """The priors with the dimensions that an arrangement gives their field."""
        cut = cut_parts(priors.parts, arrangement.sizes)
        if cut is None:  # a dimension is cut where images and copies do not end
            priors = self.expanded(priors, range(len(priors.dims)), always=0 in arrangement.sizes)
            cut = cut_parts(priors.parts, arrangement.sizes)
        if cut is None:
            assert 0 in arrangement.sizes  # a view of nothing may have other axes altogether
            node = self.relayout(priors.node, split=arrangement.sizes)
            priors = RowPriors(node, tuple((Part(size, True),) for size in arrangement.sizes))
            cut = list(priors.dims)
        node = self._split(priors, [part for dim in cut for part in dim])
        dims = tuple(
            tuple(part for index in group for part in cut[index]) for group in arrangement.groups
        )
        places = [(index, number) for index, dim in enumerate(cut) for number, _ in enumerate(dim)]
        varying = [place for place in places if cut[place[0]][place[1]].varies]
        wanted = [
            (index, number)
            for group in arrangement.groups
            for index in group
            for number, part in enumerate(cut[index])
            if part.varies
        ]
        order = [varying.index(place) for place in wanted]
        if order != sorted(order):
            node = self.relayout(node, order=order)
        return self._without_copies(RowPriors(node, dims))

    def with_all_dims(self, priors: RowPriors, dims: Sequence[int]) -> Node:
        """The priors with a dimension for each of `dims`, of size one where they do not differ."""
        priors = self.expanded(priors, [dim for dim in dims if priors.varies(dim)])
        sizes = [size_of(priors.dims[dim]) if priors.varies(dim) else 1 for dim in dims]
        if all(priors.varies(dim) for dim in dims):
            return priors.node
        return self.relayout(priors.node, merge=sizes)

    def expanded(
        self, priors: RowPriors, dims: Sequence[int], *, always: bool = False
    ) -> RowPriors:
        """The priors with one part, which varies, for each of these dimensions that differ.

        With `always`, for all of these dimensions.
        """
        chosen = [dim for dim in dims if always or priors.varies(dim)]
        chosen = [dim for dim in chosen if not is_one(priors.dims[dim])]
        if not chosen:
            return priors
        parts = [
            part
            for index, dim in enumerate(priors.dims)
            for part in dim
            if part.varies or index in chosen
        ]
        merged: list[Size] = []
        for index, dim in enumerate(priors.dims):
            if index in chosen:
                merged.append(size_of(dim))
            else:
                merged.extend(part.size for part in dim if part.varies)
        node = priors.node
        if not all(part.varies for part in parts):
            split = [part.size if part.varies else 1 for part in parts]
            counts = [1 if part.varies else part.size for part in parts]
            node = self.relayout(node, split=split)
            if any(count != 1 for count in counts):
                node = self._run(Instruction(label_ops.repeat, (node, counts, False)))
        if merged != [part.size for part in parts]:
            node = self.relayout(node, merge=merged)
        whole = [
            (Part(size_of(dim), True),) if index in chosen else dim
            for index, dim in enumerate(priors.dims)
        ]
        return RowPriors(node, tuple(whole))

    def in_order(self, priors: RowPriors, dims: Sequence[int]) -> Node:
        """The priors' node, with the dimensions of the field in this order."""
        numbers: dict[int, list[int]] = {}
        count = 0
        for index, dim in enumerate(priors.dims):
            for part in dim:
                if part.varies:
                    numbers.setdefault(index, []).append(count)
                    count += 1
        order = [number for dim in dims for number in numbers.get(dim, ())]
        return priors.node if order == sorted(order) else self.relayout(priors.node, order=order)

    def _without_copies(self, priors: RowPriors) -> RowPriors:
        """A dimension of copies of a single sample has one prior."""
        copies = [
            dim
            for dim in range(len(priors.dims))
            if priors.varies(dim)
            and size_of(priors.dims[dim]) != 1
            and all(part.size == 1 for part in priors.dims[dim] if part.varies)
        ]
        if not copies:
            return priors
        kept = [
            part.size
            for index, dim in enumerate(priors.dims)
            for part in dim
            if part.varies and index not in copies
        ]
        dims = [
            (Part(size_of(dim), False),) if index in copies else dim
            for index, dim in enumerate(priors.dims)
        ]
        return RowPriors(self.relayout(priors.node, merge=kept), tuple(dims))

    def _split(self, priors: RowPriors, parts: Sequence[Part]) -> Node:
        """The priors' node with a dimension for each of the finer parts that vary."""
        sizes = [part.size for part in parts if part.varies]
        if sizes == [part.size for part in priors.parts if part.varies]:
            return priors.node
        return self.relayout(priors.node, split=sizes)

    def relayout(self, node: Node, **settings: Sequence[Size]) -> Node:
        """A call of `relayout`; torch infers the only size that depends on the batch."""
        shown: dict[str, Any] = {}
        for name, sizes in settings.items():
            inferred = sum(map(is_dynamic, sizes)) == 1
            shown[name] = [-1 if inferred and is_dynamic(size) else size for size in sizes]
        return self._run(Instruction(label_ops.relayout, (node,), shown))
