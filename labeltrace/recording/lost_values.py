"""Values of the image that leave torch and come back as other tensors: labels cannot follow them.

A model may ask for a number and branch on it: its calls show what it did then. It may not compute
features in numpy. What comes back from there looks like a constant, and a label that takes it for
one is wrong without a word.
"""

from __future__ import annotations

import linecache
from typing import Any

from labeltrace.capture.node_info import signature
from labeltrace.errors import CaptureError
from labeltrace.recording.image_values import ImageValues
from labeltrace.recording.record import Run
from labeltrace.recording.recorded_calls import (
    CallPlace,
    OriginKind,
    RecordedCall,
    TensorRef,
    refs_in,
)

_LEAVES = "aten.resolve_neg"
"""What `numpy` and `tolist` call last. Nothing of torch reads its result then."""

_COMES_BACK = "aten.lift_fresh"
"""What `torch.tensor`, `as_tensor` and `from_numpy` call first."""

_MOST_NUMBERS = 4096
"""Tensors with more entries are not made of single numbers."""

_GATES = ("mul", "div", "true_divide", "where", "masked_fill")
"""Operators whose other operand keeps its label, as with a number in the place of the constant."""


def check_nothing_lost(run: Run, image_leaf: int) -> None:
    """Check that labels can follow all values of the image that reach an output.

    Raises:
        CaptureError: a function transform of torch reads values of the image, or such values
            become an array or list, and a tensor made of those is part of an activation.
    """
    recording = run.recording
    inputs = enumerate(recording.inputs)
    image = next((i for i, info in inputs if info.origin.detail == image_leaf), None)
    if image is not None:
        _Check(run, image).run()


class _Check:
    """One walk along a recording."""

    def __init__(self, run: Run, image: int) -> None:
        recording = run.recording
        self._run = run
        self._recording = recording
        self._values = ImageValues(recording, image)
        self._read = {ref.number for call in recording.calls for ref in refs_in(_arguments(call))}
        self._left: dict[str, tuple[Any, int] | None] = {}  # by the call of a module
        self._returned: dict[int, tuple[Any, int] | None] = {}  # by storage
        self._numbers: dict[float, tuple[Any, int] | None] = {}
        self._of_numbers: dict[int, float] = {}  # by storage

    def run(self) -> None:
        recording = self._recording
        transformed = list(recording.transformed)
        for index, (call, place) in enumerate(zip(recording.calls, recording.places, strict=True)):
            while transformed and transformed[0].after <= index:
                self._transformed(transformed.pop(0))
            self._leaves(call, place)
            self._note_number(index, call)
            self._comes_back(call, place)
            self._used(call)
            self._values.after(call)
        for other in transformed:
            self._transformed(other)
        for leaf in recording.outputs:
            if isinstance(leaf, TensorRef) and self._is_returned(leaf.number):
                self._fail(self._returned[self._storage(leaf.number)], "is returned")
            if isinstance(leaf, TensorRef) and self._storage(leaf.number) in self._of_numbers:
                self._fail_for_number(self._of_numbers[self._storage(leaf.number)])

    def _transformed(self, call: Any) -> None:
        if self._values.among(ref.number for ref in call.read):
            raise CaptureError(
                "values of the image are computed with inside torch.vmap or a transform of "
                f"torch.func, at {_text(call.line)}; labels cannot be followed into it: write "
                "that step for the whole batch"
            )

    def _leaves(self, call: RecordedCall, place: CallPlace) -> None:
        """Note an array or list that is made of values of the image."""
        if signature(call.operator).names[-1] != _LEAVES or not self._values.read_by(call):
            return
        results = [ref.number for ref in refs_in(call.results)]
        if not self._read.intersection(results):
            self._left[_module(place)] = call.line

    def _note_number(self, index: int, call: RecordedCall) -> None:
        """Note a number of the image; zeros and ones are too common to be known again."""
        number = self._run.numbers.get(index)
        if isinstance(number, float) and number not in (0, 1) and self._values.read_by(call):
            self._numbers[number] = call.line

    def _comes_back(self, call: RecordedCall, place: CallPlace) -> None:
        """Note a floating tensor that is made of an array in the same call of a module.

        And one that holds a number of the image: it may serve as such, but not as an output.
        """
        if signature(call.operator).names[-1] != _COMES_BACK:
            return
        for ref in refs_in(_arguments(call)):
            info = self._recording.tensors[ref.number]
            if info.origin.kind is not OriginKind.CONSTANT or not info.dtype.is_floating_point:
                continue
            if info.shape and _module(place) in self._left:
                self._returned[info.storage] = call.line
            values = self._run.kept.get(ref.number)
            if self._numbers and values is not None and values.numel() <= _MOST_NUMBERS:
                known = self._numbers.keys() & set(values.flatten().tolist())
                self._of_numbers.update((info.storage, number) for number in known)

    def _used(self, call: RecordedCall) -> None:
        """Follow what has come back; it may not become part of what comes from the image."""
        read = [ref.number for ref in refs_in(_arguments(call))]
        numbers = [self._of_numbers.get(self._storage(n)) for n in read]
        number = next((number for number in numbers if number is not None), None)
        if number is not None and not self._values.read_by(call):
            for ref in refs_in(call.results):
                self._of_numbers.setdefault(self._storage(ref.number), number)
        lines = [self._returned[self._storage(n)] for n in read if self._is_returned(n)]
        if not lines:
            return
        name = signature(call.operator).names[-1].removeprefix("aten.").rstrip("_")
        if self._values.read_by(call):
            if name not in _GATES:
                self._fail(lines[0], f"enters {name} with them")
            return
        for ref in refs_in(call.results):
            if self._recording.tensors[ref.number].dtype.is_floating_point:
                self._returned.setdefault(self._storage(ref.number), lines[0])

    def _storage(self, number: int) -> int:
        return self._recording.tensors[number].storage

    def _is_returned(self, number: int) -> bool:
        return self._storage(number) in self._returned

    def _fail_for_number(self, number: float) -> None:
        raise CaptureError(
            f"a number of the image leaves torch at {_text(self._numbers[number])}, and a tensor "
            "that is made of it is returned; labels cannot be followed through Python. Return "
            "the tensor that the number comes from, or the number itself"
        )

    def _fail(self, line: tuple[Any, int] | None, what: str) -> None:
        raise CaptureError(
            "values of the image leave torch as an array or list, at "
            f"{next(iter(map(_text, self._left.values())))}, and a tensor that is made at "
            f"{_text(line)} {what}; labels cannot be followed through numpy or Python. Compute "
            "that step with torch; if the tensor does not depend on the image, make it in "
            "__init__, as a buffer"
        )


def _arguments(call: RecordedCall) -> tuple[Any, ...]:
    return (call.arguments, tuple(value for _, value in call.keywords))


def _module(place: CallPlace) -> str:
    return place.modules[-1].key if place.modules else ""


def _text(line: tuple[Any, int] | None) -> str:
    if line is None:
        return "a line outside the model"
    code, number = line
    return f"{code.co_filename}:{number}: {linecache.getline(code.co_filename, number).strip()}"
