"""The environment of a walk: what is known of each value so far. Nothing else in it changes."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Iterable, MutableMapping
from typing import TypeVar

from labeltrace.capture.call_records import CallRecord, ModelCalls
from labeltrace.flow import LabelField, LabelStep, ValueRef
from labeltrace.tracing.values import (
    CONSTANT,
    Failed,
    PositionsUnknown,
    Value,
    ValueState,
)

AnyState = TypeVar("AnyState", bound=ValueState)


class Environment:
    """The states of values by the names of the calls that compute them.

    Attributes:
        calls: the records of all calls.
        steps: the label steps so far, by the field that each computes.
    """

    def __init__(self, calls: ModelCalls) -> None:
        self.calls = calls
        self.steps: dict[LabelField, LabelStep] = {}
        self._states: MutableMapping[str, ValueState] = {}
        self._fields: dict[tuple[object, ...], LabelField] = {}
        self._last_writes: dict[int, int] = {}  # by memory: the index of the call
        self._by_memory: dict[int, list[CallRecord]] = {}
        for call in calls:
            if call.tensor is not None:
                self._by_memory.setdefault(call.tensor.storage, []).append(call)

    def second_reading(self) -> Environment:
        """An environment with the same steps, in which values may be assigned other states."""
        second = copy.copy(self)
        second._states = ChainMap({}, self._states)
        return second

    # Lookup.

    @property
    def batch(self) -> int:
        """The number of images: the size of axis 0 of the input."""
        tensor = self.calls[self.calls.traced_input].tensor
        return tensor.shape[0] if tensor is not None else 0

    def state(self, name: str) -> ValueState:
        """What is known of the results of a call."""
        return self._states.get(name, CONSTANT)

    def value(self, name: str) -> Value | None:
        """The first result of a call that has not failed; None where no layout is known."""
        state = self.state(name)
        assert not isinstance(state, Failed)
        return None if isinstance(state, PositionsUnknown) else state.first

    def comes_from_image(self, name: str) -> bool:
        """Whether a result of a call comes from the image, or may do so."""
        state = self.state(name)
        if isinstance(state, (Failed, PositionsUnknown)):
            return True
        return any(value is not None for value in state.values)

    def inputs_from_image(self, call: CallRecord) -> tuple[str, ...]:
        """The inputs of a call that come from the image, or may do so."""
        return tuple(name for name in call.inputs if self.comes_from_image(name))

    def views(self, name: str, *, until: int) -> list[CallRecord]:
        """The calls up to an index whose results share the memory of a call's result."""
        tensor = self.calls[name].tensor
        views = [] if tensor is None else self._by_memory[tensor.storage]
        return [call for call in views if call.index <= until]

    def has_changed(self, ref: ValueRef) -> bool:
        """Whether some call has written to the memory of a value since it was computed."""
        call = self.calls[ref.name]
        return call.tensor is not None and (
            self._last_writes.get(call.tensor.storage, -1) > call.index
        )

    def states(self, names: Iterable[str], kind: type[AnyState]) -> dict[str, AnyState]:
        """The states of one kind among those of some calls."""
        states = ((name, self.state(name)) for name in names)
        return {name: state for name, state in states if isinstance(state, kind)}

    # Changes.

    def assign(self, name: str, state: ValueState) -> None:
        """Set the state of a call's results."""
        self._states[name] = state

    def fail(self, call: CallRecord) -> None:
        """Nothing is known of what a call computes or writes, nor of what reads that later."""
        self.assign(call.name, Failed())
        if call.written is not None:
            self.assign(call.written, Failed())

    def note_write(self, call: CallRecord) -> None:
        """Remember that a call has written to memory, if it does so."""
        written = None if call.written is None else self.calls[call.written].tensor
        if written is not None:
            self._last_writes[written.storage] = call.index

    def field_of(self, step: LabelStep, target: LabelField) -> LabelField:
        """The field of a step: that of an equal earlier step, else `target`, which is then added.

        Rules rely on it: operands with the same field and layout have the same labels.
        """
        field = self._fields.setdefault(step.identity(), target)
        if field is target:
            self.steps[target] = step
        return field
