"""The recorder: a dispatch mode that sees every operator that a model calls, whole and natively.

It stands at torch's PreDispatch key, where `torch.export` stands too: `linear`, `layer_norm` and
`scaled_dot_product_attention` arrive in one piece, and autograd, autocast and hooks work below it
as they always do. Torch lets in three kinds of modes there; `SchemaCheckMode`, which watches
operators and changes nothing, is the one that this mode is of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch._dispatch.python import no_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labeltrace.capture.node_info import signature
from labeltrace.errors import CaptureError
from labeltrace.recording.call_places import CallPlaces, model_line
from labeltrace.recording.recorded_calls import (
    CallPlace,
    RecordedCall,
    Recording,
    TensorInfo,
    TransformedCall,
)
from labeltrace.recording.tensor_table import TensorTable


class Recorder(SchemaCheckMode):
    """Records calls while it is active.

    Attributes:
        table: the tensors of the run.
        calls: the calls so far.
        places: the place of each call.
        transformed: the calls inside function transforms so far.
        numbers: what calls gave that is no tensor, by the index of the call. It is no part of the
            record: what a model does with a number, its later calls show.
        followed: the recording that this run has repeated so far; None where it differs. The
            places of a repeated call are those of that recording.
    """

    def __init__(
        self,
        model: nn.Module,
        functions: Mapping[Callable[..., Any], Any],
        bottom: FrameType,
        followed: Recording | None = None,
        reads: frozenset[int] | None = None,
    ) -> None:
        super().__init__()
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.calls: list[RecordedCall] = []
        self.places: list[CallPlace] = []
        self.transformed: list[TransformedCall] = []
        self.numbers: dict[int, Any] = {}
        self.followed = followed
        self.table = TensorTable(state_names(model), None if followed is None else reads)
        self._bottom = bottom
        self._model = model
        self._functions = functions
        self._call_places: CallPlaces | None = None
        self._noted = 0

    @property
    def module_types(self) -> Mapping[str, type]:
        """The classes of the modules that were called, by path."""
        return {} if self._call_places is None else self._call_places.module_types

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[type[Any], ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator as it is, and write its call down."""
        kwargs = kwargs or {}
        table = self.table
        if _functorch.peek_interpreter_stack() is not None:
            return self._run_in_transform(func, args, kwargs)
        # Torch's own C++ kernels, not those that its Python dispatcher has for tracing.
        with no_python_dispatcher():
            arguments = self._described(args)
            keywords = tuple([(name, self._described(value)) for name, value in kwargs.items()])
            if not self._repeats(func, arguments, keywords):
                self.stop_following()
                self._described((args, tuple(kwargs.values())))  # which keeps what it reads
            written = _written(func, args, kwargs)
            for tensor in written:
                table.before_write(tensor)
            result = func(*args, **kwargs)
            for tensor in written:
                table.after_write(tensor)
            results = self._results(result)
        tensors = self.new_tensors()
        line = model_line(self._bottom)
        followed = self.followed
        self._note(RecordedCall(func, arguments, keywords, results, tensors, line))
        if self.followed is not followed:
            self._described(result)
        return result

    def _repeats(self, func: Any, arguments: Any, keywords: Any) -> bool:
        """Whether a call is that of the followed recording, as far as is known before it runs."""
        if self.followed is None:
            return True
        calls, index = self.followed.calls, len(self.calls)
        return index < len(calls) and calls[index][:3] == (func, arguments, keywords)

    def _run_in_transform(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operator inside `torch.vmap` or `torch.func`; only what it reads is noted.

        Its tensors are not those that the model has outside: a batch is hidden in them, or an
        inner autograd graph.
        """
        with no_python_dispatcher():
            read = tuple(self.table.ref(_unwrapped(tensor)) for tensor in _tensors(args, kwargs))
            written = [_unwrapped(tensor) for tensor in _written(func, args, kwargs)]
            for tensor in written:
                self.table.before_write(tensor)
            result = func(*args, **kwargs)
            for tensor in written:
                self.table.after_write(tensor)
        self.transformed.append(TransformedCall(len(self.calls), read, model_line(self._bottom)))
        return result

    def _note(self, call: RecordedCall) -> None:
        index = len(self.calls)
        if self.followed is not None:
            calls = self.followed.calls
            if index < len(calls) and calls[index] == call:
                self.calls.append(calls[index])
                self.places.append(self.followed.places[index])
                return
            self.stop_following()
        if self._call_places is None:
            self._call_places = CallPlaces(self._model, self._functions, self._bottom)
        self.calls.append(call)
        self.places.append(self._call_places.place())

    def new_tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors that have appeared since this was asked last."""
        first, self._noted = self._noted, len(self.table.infos)
        return tuple(self.table.infos[first:])

    def stop_following(self) -> None:
        """The run differs from the followed one: from here on, whatever appears is kept."""
        self.followed = None
        self.table.only = None

    def _described(self, value: Any) -> Any:
        """An argument with tensors by number."""
        if isinstance(value, Tensor):
            return self.table.ref(value)
        if isinstance(value, (list, tuple)):
            return tuple([self._described(item) for item in value])
        if type(value) is float and math.isnan(value):
            return math.nan  # one object, so that equal calls are equal
        return value

    def _results(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.table.add_result(value)
        if isinstance(value, (list, tuple)):
            return tuple([self._results(item) for item in value])
        if value is not None:
            self.numbers[len(self.calls)] = value
        return None


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def _unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that a function transform has wrapped, perhaps several times."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def refuse_higher_order() -> None:
    """Let every higher-order operator (`torch.cond`) say that it cannot be recorded.

    Torch asks each of them what to do in this mode. New ones may be imported at any time.
    """
    for operator in torch._ops._higher_order_ops.values():
        if Recorder not in operator.python_key_table:
            operator.py_impl(Recorder)(functools.partial(_refused, operator.__name__))


def _refused(name: str, *_: Any, **__: Any) -> Any:
    raise CaptureError(
        f"the model calls torch.{name}, whose branches or loops run inside the operator; write "
        "them as Python's own, which the recorded engine follows"
    )


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a call writes to."""
    found = signature(func)
    if not found.written:
        return []
    given = {**dict(zip(found.defaults, args, strict=False)), **kwargs}
    values = [given.get(name) for name in found.written]
    each = (value if isinstance(value, (list, tuple)) else (value,) for value in values)
    return [item for items in each for item in items if isinstance(item, Tensor)]


def state_names(model: nn.Module) -> dict[int, str]:
    """The qualified names of parameters and buffers, by the identity of the tensor."""
    found: dict[int, str] = {}
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    seen: set[int] = set()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    found.setdefault(id(tensor), prefix + name)
        for name, child in module._modules.items():
            if child is not None:
                waiting.append((f"{prefix}{name}.", child))
    return found


def output_leaves(
    recorder: Recorder, leaves: Sequence[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The leaves of the outputs with tensors by number, and the tensors that appear first there.

    Leaves that are no tensors have no labels, whatever they are: they are not looked at.
    """
    described = tuple(
        recorder.table.ref(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves
    )
    return described, recorder.new_tensors()
