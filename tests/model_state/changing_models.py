"""Models with Python state of every kind, and the globals that they read."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 3
MODE = "plain"
STEPS = [1, 2, [3]]
TABLE = {"a": {"b": 5}}
PAIR = (7, (11, 13))
ACTIVATION: Callable[..., Tensor] = F.relu
WEIGHT = torch.ones(3)
OPTIONAL: Any = None
SETTINGS = SimpleNamespace(depth=2)
INNER = 17
DEEP = 19
LATE = 23
COUNTED = 0
UNREAD = 29
CONSTRUCTED = 31
OTHER = ModuleType("tests.model_state.other")
OTHER.FLAG = True  # type: ignore[attr-defined]
OTHER.part = ModuleType("tests.model_state.other.part")  # type: ignore[attr-defined]
OTHER.part.RATE = 0.5
CONTEXT: ContextVar[int] = ContextVar("CONTEXT", default=2)
LOCAL = threading.local()
LOCAL.depth = 3
DRAWS = np.random.default_rng(0)


class Color(Enum):
    RED = 1
    BLUE = 2


class Level(IntEnum):
    LOW = 1
    HIGH = 2


CHOICE = Color.RED


@dataclass
class Config:
    depth: int = 2
    names: list[str] = field(default_factory=lambda: ["a"])


class Slotted:
    __slots__ = ("inner", "size")

    def __init__(self) -> None:
        self.size = 3
        self.inner = {"a": [1]}


class Pair(NamedTuple):
    first: Any
    second: Any


class Keyed(dict[str, Any]):
    """A dict with attributes of its own."""


class Helper:
    rate = 0.25

    def __init__(self) -> None:
        self.offset = 1

    def apply(self, x: Tensor) -> Tensor:
        return x * LATE + self.offset

    def never(self) -> int:
        return UNREAD


class Shared:
    """Settings as attributes of a class."""

    amount = 5


def deep(x: Tensor) -> Tensor:
    return x * DEEP


def inner(x: Tensor, shift: int = 1) -> Tensor:
    return deep(x) * INNER + shift


def counted(x: Tensor) -> Tensor:
    global COUNTED
    COUNTED += 1
    return x


def scaled(x: Tensor, by: float = 2.0) -> Tensor:
    return x * by


def made(bound: Any) -> Callable[[Tensor], Tensor]:
    def inside(x: Tensor) -> Tensor:
        return x * bound

    return inside


class Built:
    def __init__(self) -> None:
        self.value = CONSTRUCTED


class Reading(nn.Module):
    """A forward that reads every global above."""

    class_setting = 3
    class_list = [1, 2]  # noqa: RUF012 - a mistake that users make

    def __init__(self) -> None:
        super().__init__()
        self.helper = Helper()

    @property
    def factor(self) -> int:
        return SCALE

    @staticmethod
    def fixed(x: Tensor) -> Tensor:
        return x + PAIR[0]

    def step(self, x: Tensor) -> Tensor:
        return x * STEPS[0] * TABLE["a"]["b"] * (2 if OPTIONAL is None else 1)

    def forward(self, x: Tensor) -> Tensor:
        x = ACTIVATION(inner(x)) * self.factor + WEIGHT.sum() * SETTINGS.depth
        x = self.helper.apply(self.fixed(self.step(x))) * OTHER.part.RATE
        x = counted(x) * Shared.amount * Built().value
        if OTHER.FLAG and MODE == "plain" and CHOICE is Color.RED:
            x = x + float(DRAWS.random()) + self.class_setting
        if os.environ.get("TESTED") is None:
            x = x * CONTEXT.get() * LOCAL.depth
        return functools.reduce(lambda a, _: a + SETTINGS.depth, self.class_list, x)


class Holder(nn.Module):
    """A module with a value of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.more = nn.ModuleList([nn.Linear(5, 7), nn.Dropout(0.1)])
        self.register_buffer("grid", torch.arange(7.0))
        self.register_parameter("bias", None)
        self.integer = 3
        self.number = 0.5
        self.zero = 0.0
        self.nan = float("nan")
        self.text = "mean"
        self.raw = b"ab"
        self.flag = True
        self.nothing: Any = None
        self.sizes = (3, 5)
        self.nested = (3, [5, {"a": (7, {11})}])
        self.items: list[Any] = [1, [2, [3]], {"a": 4}]
        self.table: dict[Any, Any] = {"a": 1, "b": {"c": [2]}, (1, 2): 3}
        self.ordered = OrderedDict(a=1, b=2)
        self.default: Any = defaultdict(list, {"a": [1]})
        self.queue = deque([1, 2], maxlen=5)
        self.names = {"a", "b"}
        self.frozen = frozenset({1, (2, 3)})
        self.empty: list[Any] = []
        self.empty_table: dict[str, Any] = {}
        self.color = Color.RED
        self.level = Level.LOW
        self.config = Config()
        self.space = SimpleNamespace(a=1, b=[2], c=SimpleNamespace(d=3))
        self.slotted = Slotted()
        self.pair = Pair([1], 2)
        self.keyed = Keyed(a=1)
        self.keyed.extra = 5  # type: ignore[attr-defined]
        self.share = Fraction(1, 3)
        self.bytes = bytearray(b"abc")
        self.plain = torch.arange(5.0)
        self.tensors = {"a": [torch.ones(3)], "half": torch.ones(3, dtype=torch.bfloat16)}
        self.array = np.arange(5.0)
        self.objects = np.array([1, "a"], dtype=object)
        self.scalar = np.float32(0.5)
        self.activation: Any = F.relu
        self.partial: Any = functools.partial(scaled, by=3.0)
        self.closure: Any = made([1])
        self.method: Any = Helper().apply
        self.listed = [nn.Linear(5, 3), {"a": nn.Dropout(0.1)}]
        self.generator = torch.Generator().manual_seed(0)
        self.dtype: Any = torch.float32
        self.cycle: list[Any] = [1]
        self.cycle.append(self.cycle)
        self.space.owner = self.space

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.layer(x)))


class Stepping(nn.Module):
    """Calls a method that subclasses define."""

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        return x


class SteppingFar(Stepping):
    def step(self, x: Tensor) -> Tensor:
        return x * UNREAD


class Mixin:
    def shifted(self, x: Tensor) -> Tensor:
        return x + UNREAD


class Unshifted(Mixin, nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Shifting(nn.Module):
    shifted: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.shifted(x)


class Shifted(Shifting, Mixin):
    pass
