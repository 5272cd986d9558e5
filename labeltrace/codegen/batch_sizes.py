"""Sizes that depend on the batch, in the label program: computed from the label image's batch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch.fx import Node

from labeltrace import label_ops
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.errors import LayoutError
from labeltrace.layout import BATCH_NAME, BatchSize, Written, WrittenSize

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}

SIGNS: Final[Mapping[Any, str]] = {function: sign for sign, function in _OPERATORS.items()}
"""The sign of each function that computes sizes."""


class BatchSizes:
    """The nodes that compute sizes; a listing writes them where they are read."""

    def __init__(self, calls: LabelCalls, labels: Node) -> None:
        self._calls = calls
        self._labels = labels

    def node(self, size: BatchSize) -> Node:
        """The node that computes a size.

        Raises:
            LayoutError: the size depends on values, not on the batch alone.
        """
        written = self._node(size.written)
        assert isinstance(written, Node)  # the size is no number
        return written

    def _node(self, written: WrittenSize) -> Node | int:
        if isinstance(written, int):
            return written
        if isinstance(written, Written):
            parts = (self._node(written.left), self._node(written.right))
            return self._calls.call(_OPERATORS[written.sign], parts, name="size")
        if written == BATCH_NAME:
            return self._calls.call(label_ops.batch_size, (self._labels,), name="batch")
        raise LayoutError(
            f"labels need the size {written}, which depends on the values of the model's tensors"
        )
