"""What a recording consists of: calls of operators, and the tensors that appear in them.

Tensors are numbered in the order in which they appear. A tensor that is written to gets another
number: a number stands for values, not for memory. Two runs of a model that make the same calls
have equal records, whatever the values are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch

from labeltrace.capture.call_records import ModuleCall


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor among the arguments or results of a recorded call, by its number."""

    number: int


class OriginKind(Enum):
    """Where a tensor comes from."""

    RESULT = "result"
    """The result of a recorded call."""
    STATE = "state"
    """A parameter or buffer of the model; the detail is its qualified name."""
    INPUT = "input"
    """A leaf of the model's arguments; the detail is its index."""
    SAME_VALUES = "same values"
    """The same elements of memory as another tensor, whose number is the detail."""
    SAME_MEMORY = "same memory"
    """Other elements of the memory of another tensor, whose number is the detail."""
    CONSTANT = "constant"
    """A tensor that the model holds or made in a way that no operator shows."""


class Origin(NamedTuple):
    """Where a tensor comes from; `detail` depends on the kind."""

    kind: OriginKind
    detail: Any = None


class TensorInfo(NamedTuple):
    """The geometry of a tensor, and where it comes from; `storage` numbers its memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    storage: int
    origin: Origin


class RecordedCall(NamedTuple):
    """One call of an operator.

    Attributes:
        operator: the overload.
        arguments: its positional arguments; tensors are `TensorRef`, lists are tuples.
        keywords: its keyword arguments, by name.
        results: what it returns, in the same form; None for what is no tensor.
        tensors: the tensors that appear here for the first time, by their numbers in order.
        line: the code object and the line of the innermost frame outside torch; None if there is
            none inside the model.
    """

    operator: torch._ops.OpOverload
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    results: Any
    tensors: tuple[TensorInfo, ...]
    line: tuple[Any, int] | None


class CallPlace(NamedTuple):
    """Where a call is made.

    Attributes:
        modules: the calls of modules around it, the outermost first.
        function: the tag and the function of a call with a rule that it is made in.
    """

    modules: tuple[ModuleCall, ...]
    function: tuple[str, Any] | None


class TransformedCall(NamedTuple):
    """An operator that ran inside a function transform, such as `torch.vmap`.

    Attributes:
        after: how many calls had been recorded before it.
        read: the tensors that it read, without the wrappers of the transform.
        line: as that of a recorded call.
    """

    after: int
    read: tuple[TensorRef, ...]
    line: tuple[Any, int] | None


@dataclass(frozen=True, slots=True)
class Recording:
    """One run of a model.

    Attributes:
        inputs: the tensors among the leaves of the arguments, numbered first.
        calls: the calls in order.
        places: the place of each call.
        outputs: the leaves of what the model returned: `TensorRef`, or None for what is no tensor.
        output_tensors: the tensors that appear first among the outputs.
        transformed: what ran inside function transforms; its results are constants here.
    """

    inputs: tuple[TensorInfo, ...]
    calls: tuple[RecordedCall, ...]
    places: tuple[CallPlace, ...]
    outputs: tuple[Any, ...]
    output_tensors: tuple[TensorInfo, ...]
    transformed: tuple[TransformedCall, ...] = ()

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Every tensor, by its number."""
        new = (tensor for call in self.calls for tensor in call.tensors)
        return (*self.inputs, *new, *self.output_tensors)


def refs_in(value: Any) -> Iterator[TensorRef]:
    """The tensors among arguments or results, in order."""
    if isinstance(value, TensorRef):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs_in(item)
