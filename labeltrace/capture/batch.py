"""The sizes of the batch for which a graph holds, and whether one sample is treated like several.

A batch that `torch.export` leaves dynamic starts at two: it takes a batch of one for a constant.
Models may treat a single sample in another way, so its graph is exported as well and compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isinf
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from labeltrace.capture.batch_guards import BatchRange, narrowed_range
from labeltrace.layout import Size

Calls = tuple[tuple[Any, ...], ...]
"""Operators with the plain values among their arguments; `...` replaces computed ones."""

SMALLEST_DYNAMIC_BATCH = 2
"""What `torch.export` assumes of a dynamic size."""

BATCH_OF_ONE_DIFFERS = "the model treats a batch of one differently"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The sizes of the batch for which a graph holds.

    Attributes:
        smallest: the smallest of them.
        largest: the largest; infinity where there is no bound.
        fixed_reason: why the graph holds for one size only; empty where the batch is dynamic.
        step: the sizes leave the same `remainder` when they are divided by this number. Where a
            model takes its batch apart, that may be more than one.
        remainder: that remainder.
    """

    smallest: int
    largest: float
    fixed_reason: str = ""
    step: int = 1
    remainder: int = 0

    @property
    def dynamic(self) -> bool:
        """Whether sizes are left open."""
        return not self.fixed_reason

    def holds_for(self, batch: int) -> bool:
        """Whether the graph is that of the model for this size."""
        return self.smallest <= batch <= self.largest and batch % self.step == self.remainder

    @property
    def size(self) -> Size:
        """The size of a batch that is left open, as layouts have it.

        One sample, where the graph holds for it too, is treated like several.
        """
        smallest = max(self.smallest, SMALLEST_DYNAMIC_BATCH)
        return BatchRange(smallest, self.largest, self.step, self.remainder).size

    @property
    def may_start_at_one(self) -> bool:
        """Whether nothing but torch's own assumption excludes a single sample."""
        is_open = self.dynamic and isinf(self.largest) and self.step == 1
        return is_open and self.smallest == SMALLEST_DYNAMIC_BATCH

    def from_one(self) -> BatchPolicy:
        """The same sizes, and those from one sample up."""
        return replace(self, smallest=1)


def fixed_batch(size: int, reason: str) -> BatchPolicy:
    """One size only."""
    return BatchPolicy(size, float(size), reason)


def dynamic_batch(program: ExportedProgram, example: int) -> BatchPolicy:
    """All sizes from two up, unless the model sets other bounds.

    Sizes that depend on values have symbols too; those say nothing about the batch.

    Args:
        program: the exported model.
        example: the size of the batch that it was exported with.
    """
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    shapes = [node.meta["val"].shape for node in inputs if isinstance(node.meta["val"], Tensor)]
    symbols: list[Any] = [size for shape in shapes for size in shape if type(size) is not int]
    sizes = {symbol.node.expr for symbol in symbols}
    smallest, largest = SMALLEST_DYNAMIC_BATCH, float("inf")
    for symbol, bounds in program.range_constraints.items():
        if symbol not in sizes:
            continue
        smallest = max(smallest, int(bounds.lower))
        largest = min(largest, float(bounds.upper))
    guards = [guard.expr for symbol in symbols[:1] for guard in symbol.node.shape_env.guards]
    found = narrowed_range(BatchRange(smallest, largest), guards, example)
    return BatchPolicy(found.smallest, found.largest, step=found.step, remainder=found.remainder)


# One sample and several. --------------------------------------------------------------------------


def recorded_calls(program: ExportedProgram) -> Calls:
    """Every call of an operator, except those that read sizes or slice nothing off.

    With a batch of one, torch may or may not record a slice of the whole batch.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    calls = [
        (str(node.target), *map(_plain, tree_flatten((node.args, node.kwargs))[0]))
        for node in nodes
        if not _slices_nothing(node)
    ]
    return tuple(call for call in calls if not _computes_size(call[0]))


def same_graph(single: Calls, dynamic: Calls) -> bool:
    """Whether a model does to one sample what it does to several.

    Numbers that the dynamic graph computes from the size of the batch are plain in the other one.
    """
    return len(single) == len(dynamic) and all(
        len(own) == len(other) and all(y is ... or x == y for x, y in zip(own, other, strict=True))
        for own, other in zip(single, dynamic, strict=True)
    )


def _plain(argument: Any) -> Any:
    return ... if isinstance(argument, Node) else argument


def _computes_size(operator: str) -> bool:
    """Whether an operator reads a size or computes one; to choose an output is no such thing."""
    is_python = operator.startswith("<built-in") and operator != str(getitem)
    return is_python or operator.startswith("aten.sym_")


def _slices_nothing(node: Node) -> bool:
    if node.target is not torch.ops.aten.slice.Tensor:
        return False
    (source, *_) = node.all_input_nodes
    return str(node.meta["val"].shape) == str(source.meta["val"].shape)
