"""Where a call is made: the line of the model, and the calls of modules and functions around it.

Frames of the interpreter tell it. So a model runs without hooks of ours, and several threads may
record at a time.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from labeltrace.capture.call_records import ModuleCall
from labeltrace.recording.recorded_calls import CallPlace

_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
_OWN_FOLDER = os.path.dirname(__file__) + os.sep
_MODULE_CALLS: Mapping[CodeType, str] = {
    getattr(nn.Module, name).__code__: "self" for name in ("_wrapped_call_impl",)
}
_LIBRARY: dict[CodeType, bool] = {}


def model_line(bottom: FrameType) -> tuple[CodeType, int] | None:
    """The code and line of the innermost frame outside torch, above `bottom`; None without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not bottom:
        code = frame.f_code
        library = _LIBRARY.get(code)
        if library is None:
            library = _LIBRARY[code] = code.co_filename.startswith((_TORCH_FOLDER, _OWN_FOLDER))
        if not library:
            return code, frame.f_lineno
        frame = frame.f_back
    return None


class CallPlaces:
    """The place of each call of a run; a call of a module has one key for all calls inside it."""

    def __init__(
        self, model: nn.Module, functions: Mapping[Callable[..., Any], Any], bottom: FrameType
    ) -> None:
        names = model.named_modules(remove_duplicate=False)
        self._names: dict[int, str] = {}
        for name, module in names:
            self._names.setdefault(id(module), name)
        self._functions = {function.__code__: function for function in functions}
        self._bottom = bottom
        self._numbers = itertools.count()
        self._last: list[tuple[FrameType, ModuleCall | tuple[str, Any]]] = []
        self.module_types: dict[str, type] = {}

    def place(self) -> CallPlace:
        """The place of the call that is being made."""
        frames = [frame for frame in _frames(self._bottom) if self._matters(frame.f_code)]
        known = self._last
        shared = 0
        while shared < min(len(known), len(frames)) and known[shared][0] is frames[shared]:
            shared += 1
        found = known[:shared]
        for frame in frames[shared:]:
            found.append((frame, self._entered(frame, found)))
        self._last = found
        modules = tuple(call for _, call in found if isinstance(call, ModuleCall))
        functions = [call for _, call in found if not isinstance(call, ModuleCall)]
        return CallPlace(modules, functions[-1] if functions else None)

    def _matters(self, code: CodeType) -> bool:
        return code in _MODULE_CALLS or code in self._functions

    def _entered(
        self, frame: FrameType, outer: list[tuple[FrameType, ModuleCall | tuple[str, Any]]]
    ) -> ModuleCall | tuple[str, Any]:
        if frame.f_code in self._functions:
            function = self._functions[frame.f_code]
            name = f"{function.__module__}.{function.__qualname__}"
            return f"{name}#{next(self._numbers)}", function
        module = frame.f_locals[_MODULE_CALLS[frame.f_code]]
        path = self._names.get(id(module))
        if path is None:  # in a plain list, or made during the call
            around = [call for _, call in outer if isinstance(call, ModuleCall)]
            inside = around[-1].path if around else ""
            path = f"{inside}.{type(module).__name__}".removeprefix(".")
        self.module_types[path] = type(module)
        return ModuleCall(f"{path}#{next(self._numbers)}", path, type(module))


def _frames(bottom: FrameType) -> list[FrameType]:
    """The frames above `bottom`, the outermost first."""
    return list(_walk(bottom))[::-1]


def _walk(bottom: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not bottom:
        yield frame
        frame = frame.f_back
