"""Which engine serves a call, and why: what `AlignedModule.engine_report` tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

EngineName = Literal["auto", "captured", "recorded"]
"""What `labeltrace.align` takes."""


class Engine(Enum):
    """How labels follow a model."""

    CAPTURED = "captured"
    """A graph of the model runs in its place, with label steps between its nodes."""
    RECORDED = "recorded"
    """The model runs as it is; label steps follow the record of its calls."""

    def __str__(self) -> str:
        return self.value


class EngineWarning(UserWarning):
    """A model runs on the recorded engine, which is slower; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine for calls of one form: shapes and types of arguments, modes, state of the model.

    Attributes:
        engine: the engine.
        inputs: the shapes of the tensors among the arguments.
        training: whether the model was in train mode.
        reason: why the model is recorded; empty where it is captured.
        source_line: the model's line that is the reason, `file:line: code`; empty if unknown.
    """

    engine: Engine
    inputs: tuple[tuple[int, ...], ...]
    training: bool
    reason: str = ""
    source_line: str = ""

    def __str__(self) -> str:
        shapes = ", ".join(map(str, self.inputs))
        text = f"{self.engine} for inputs {shapes} in {'train' if self.training else 'eval'} mode"
        why = f": {self.reason}" if self.reason else ""
        return text + why + (f" ({self.source_line})" if self.source_line else "")
