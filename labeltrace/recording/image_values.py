"""Which tensors of a recording come from the image."""

from __future__ import annotations

import re
from collections.abc import Iterable

from labeltrace.capture.node_info import signature
from labeltrace.recording.recorded_calls import RecordedCall, Recording, refs_in

_READS_NO_VALUES = re.compile(
    r"aten\.(\w+_like|new_(empty|full|ones|zeros)\w*|sym_\w+|is_pinned|_assert_tensor_metadata)$"
)
"""Operators that read the shape, type or device of their operand alone."""


class ImageValues:
    """The numbers of the tensors that come from the image, call by call.

    Memory counts as a whole: once values of the image are written to it, all its views have them.
    """

    def __init__(self, recording: Recording, image: int) -> None:
        self._tensors = recording.tensors
        self._storages = {self._tensors[image].storage}

    def among(self, numbers: Iterable[int]) -> bool:
        """Whether one of these tensors comes from the image."""
        return any(self._tensors[number].storage in self._storages for number in numbers)

    def read_by(self, call: RecordedCall) -> bool:
        """Whether a call reads values of the image."""
        name = signature(call.operator).names[-1]
        arguments = (call.arguments, tuple(value for _, value in call.keywords))
        numbers = [ref.number for ref in refs_in(arguments)]
        return self.among(numbers) and not _READS_NO_VALUES.match(name)

    def after(self, call: RecordedCall) -> None:
        """Take in what a call gives and writes."""
        if not self.read_by(call):
            return
        given = dict(call.keywords)
        found = signature(call.operator)
        given |= dict(zip(found.defaults, call.arguments, strict=False))
        written = tuple(given.get(name) for name in found.written)
        for ref in refs_in((call.results, written)):
            self._storages.add(self._tensors[ref.number].storage)
