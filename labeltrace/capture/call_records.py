"""Records of a model's calls: what tracing knows of a captured graph or of a recorded run.

One immutable record for each call. A rule, a check or an error reads records and never the graph
or the run that they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from labeltrace.layout import Size

Shape = tuple[Size, ...]
"""Sizes; those that depend on a dynamic batch are a `labeltrace.layout.BatchSize`."""


@dataclass(frozen=True, slots=True)
class Location:
    """The innermost module and source line of a call."""

    module_path: str
    module_type: str
    source_line: str

    def __str__(self) -> str:
        module = self.module_path or "(the model itself)"
        return f"{module} ({self.module_type}), {self.source_line or 'source line unknown'}"


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call of a module; `key` is the same for all calls made inside it.

    `kind` is the module's class, None where it is not known.
    """

    key: str
    path: str
    kind: type | None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call of a Python function that has a rule; `key` is the same for all calls inside it."""

    key: str
    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """The geometry of one tensor; its values are not recorded.

    `storage` identifies its memory: views of one another have the same. `is_floating` says whether
    its values can carry content; integers and booleans are indices and masks as a rule.
    `size_is_known` says that no size depends on the values of tensors; a recorded run has none.
    """

    shape: Shape
    strides: Shape
    offset: Size
    storage: int
    is_floating: bool = True
    dtype: torch.dtype | None = None
    size_is_known: bool = True

    def is_same_view(self, other: TensorRecord) -> bool:
        """Whether two views of one memory have the same elements at the same indices."""
        return (self.shape, self.strides, self.offset) == (other.shape, other.strides, other.offset)


class CallKind(Enum):
    """What a record is of."""

    INPUT = "input"
    """A tensor that the calls start from: an input, parameter, buffer or constant."""
    OPERATOR = "operator"
    """A call of an operator."""
    ITEM = "item"
    """The choice of one of several outputs; its arguments are `source` and `index`."""
    OUTPUT = "output"
    """What the model returns; its argument is `leaves`."""


@dataclass(frozen=True, eq=False, slots=True)
class CallRecord:
    """One call. Two records are equal only if they are the same.

    Attributes:
        name: identifies the record within its `ModelCalls`.
        kind: what the record is of.
        index: its place in the order of the calls.
        operator_names: the names under which a rule for it may be registered, the most specific
            first. An in-place operator has the names of its functional variant too.
        arguments: every argument by its schema name, defaults filled in. Tensors are
            `labeltrace.flow.ValueRef`, lists are tuples, sizes are integers.
        inputs: the names of the records whose results it reads, sizes included.
        users: the names of the records that read its result.
        value: the tensor that it returns, or all of them where it returns several.
        location: the innermost module and source line.
        written: the name of the record whose tensor it writes to, the first one if there are
            several; None for a functional operator.
        overwritten: the names of all records whose tensors it writes to.
        modules: the calls of modules that it is made in, the outermost first.
        function: the call of a function with a rule that it is made in.
        checkpoint: the tag of the call of `torch.utils.checkpoint` that it is made in.
        sized_by_values: whether a size that it returns, or a number, depends on tensors' values.
    """

    name: str
    kind: CallKind
    index: int
    operator_names: tuple[str, ...]
    arguments: Mapping[str, Any]
    inputs: tuple[str, ...]
    users: tuple[str, ...]
    value: TensorRecord | tuple[TensorRecord, ...]
    location: Location
    written: str | None = None
    overwritten: tuple[str, ...] = ()
    modules: tuple[ModuleCall, ...] = ()
    function: FunctionCall | None = None
    checkpoint: str | None = None
    sized_by_values: bool = False

    @property
    def operator(self) -> str:
        """The operator's name without its overload, `"aten.linear"`."""
        return self.operator_names[-1]

    @property
    def tensor(self) -> TensorRecord | None:
        """The tensor that the call returns; None where it returns none, or several."""
        return self.value if isinstance(self.value, TensorRecord) else None

    @property
    def tensors(self) -> tuple[TensorRecord, ...]:
        """Every tensor that the call returns."""
        return (self.value,) if isinstance(self.value, TensorRecord) else self.value

    @property
    def reads_sizes_only(self) -> bool:
        """Whether the call reads no values, only a size."""
        return self.operator_names[0] == "aten.sym_size.int"


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """A model's calls in the order in which they are made.

    Attributes:
        records: the records by their names, in order.
        traced_input: the name of the record that carries labels.
        channel_dim: the axis of that input that has channels.
        state: the qualified names of parameters and buffers, by the names of their records.
    """

    records: Mapping[str, CallRecord]
    traced_input: str
    channel_dim: int
    state: Mapping[str, str]

    def __getitem__(self, name: str) -> CallRecord:
        return self.records[name]

    def __iter__(self) -> Iterator[CallRecord]:
        return iter(self.records.values())

    def overwritten_storages(self) -> frozenset[int]:
        """The memory of every tensor that some call writes to."""
        tensors = (self.records[name].tensor for call in self for name in call.overwritten)
        return frozenset(tensor.storage for tensor in tensors if tensor is not None)
