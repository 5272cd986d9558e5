"""One difference between two states of a model, in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DifferenceKind(Enum):
    """What differs; the value is the noun for it."""

    ATTRIBUTE = "attribute"
    TENSOR = "tensor"
    BUFFER = "buffer"
    PARAMETER = "parameter"
    HOOK = "hook"
    GLOBAL = "global"
    GENERATOR = "random generator"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two states of a model.

    Attributes:
        kind: what differs.  A tensor in an attribute that is neither a parameter nor a buffer is
            TENSOR, wherever it is held.
        path: where, as in `blocks.3.sizes[1]`, `package.module.COUNT` or `random`.
        text: the same in one line: "attribute `step` of `blocks.3` changed from 3 to 4".
    """

    kind: DifferenceKind
    path: str
    text: str
