"""Parts of random models: layers, and what Python code does beside them.

Each part takes a map (B, 6, 5, 7) and gives one. `variant` chooses among its ways. `change` is what
happens to it between two calls.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

CHANNELS, ROWS, COLUMNS = 6, 5, 7
VARIANTS = 6
PARTS: dict[str, type[Part]] = {}


class Part(nn.Module):
    """A part; its classes are known by name."""

    def __init__(self, variant: int) -> None:
        super().__init__()
        self.variant = variant
        self.set_up()

    def __init_subclass__(cls) -> None:
        PARTS[cls.__name__] = cls

    def set_up(self) -> None:
        """Make what the part holds."""

    def change(self, index: int) -> None:
        """Change something before a call."""


class Convolution(Part):
    def set_up(self) -> None:
        size, groups = ((1, 1), (3, 1), (3, 2), (3, CHANNELS), (5, 1), (1, 3))[self.variant]
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, size, padding=size // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class OverTokens(Part):
    """A linear layer, attention, or mixing over tokens."""

    def set_up(self) -> None:
        self.layer = nn.Linear(CHANNELS, CHANNELS)
        self.mixing = nn.Linear(ROWS * COLUMNS, ROWS * COLUMNS)
        self.norm = nn.LayerNorm(CHANNELS)
        self.attention = nn.MultiheadAttention(CHANNELS, 3, batch_first=True, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        if self.variant < 2:
            tokens = self.layer(tokens)
        elif self.variant == 2:
            tokens = self.mixing(tokens.mT).mT
        elif self.variant == 3:
            tokens = tokens + F.scaled_dot_product_attention(*[self.layer(tokens)] * 3)
        elif self.variant == 4:
            scores = (tokens @ tokens.mT / 2).softmax(-1)
            tokens = tokens + scores @ self.norm(tokens)
        else:  # with weights, since the fast path of torch gives other numbers
            tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens.mT.reshape(x.shape)


class PointWise(Part):
    def set_up(self) -> None:
        self.layer = (
            nn.BatchNorm2d(CHANNELS),
            nn.Dropout(0.3),
            nn.GELU(),
            nn.GroupNorm(2, CHANNELS),
            nn.BatchNorm2d(CHANNELS, momentum=None),
            nn.ReLU(inplace=True),
        )[self.variant]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * 1)


class Residual(Part):
    def set_up(self) -> None:
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.rate = 0.2 * self.variant

    def forward(self, x: Tensor) -> Tensor:
        return x if random.random() < self.rate else x + self.layer(x)


class Side(Enum):
    ROWS = 2
    COLUMNS = 3


@dataclass
class Settings:
    dims: list[int] = field(default_factory=lambda: [3])
    scale: float = 1.0


class Attributes(Part):
    """Settings of every type, some edited in place."""

    def set_up(self) -> None:
        self.dims: Any = (3,)
        self.table: dict[str, Any] = {"deep": [1.0, {"scale": 2.0}]}
        self.side = Side.COLUMNS
        self.maybe: float | None = None
        self.settings = Settings()
        self.space = SimpleNamespace(act=torch.tanh, bound=functools.partial(F.softplus, beta=2))
        self.array = np.ones((CHANNELS, 1, 1), dtype=np.float32)

    def change(self, index: int) -> None:
        self.dims = ((2,), (2, 3), ())[index % 3]
        self.table["deep"][1]["scale"] += index
        self.side = Side.ROWS if index % 2 else Side.COLUMNS
        self.maybe = None if self.maybe else 0.5 * index
        self.settings.dims.append(2)
        self.settings.scale *= -1
        self.space.act = F.gelu if index % 2 else torch.sin
        self.space.bound = functools.partial(F.softplus, beta=index)
        self.array *= 1.5

    def forward(self, x: Tensor) -> Tensor:
        if self.variant == 0:
            return x.flip(self.dims) * self.table["deep"][1]["scale"]
        if self.variant == 1:
            return x.roll(1, self.side.value)
        if self.variant == 2:
            return x if self.maybe is None else x * self.maybe
        if self.variant == 3:
            return x.flip(self.settings.dims[-1]) * self.settings.scale
        if self.variant == 4:
            return self.space.act(self.space.bound(x))
        return x * torch.from_numpy(self.array)


class PlainTensors(Part):
    """Tensors and layers that are not registered."""

    def set_up(self) -> None:
        self.scales = [nn.Parameter(torch.randn(CHANNELS, 1, 1)), torch.randn(1)]
        self.layers = {"a": [nn.Conv2d(CHANNELS, CHANNELS, 1)]}
        scale = nn.Parameter(torch.randn(1))
        self.call = lambda x: x * scale

    def change(self, index: int) -> None:
        with torch.no_grad():
            self.scales[1] += 1
        if index == 2:
            self.scales[1] = torch.full((1,), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant < 2:
            return x * self.scales[self.variant]
        return self.layers["a"][0](x) if self.variant < 4 else self.call(x)


class Draws(Part):
    """Draws of all generators: as scales, as choices, as permutations."""

    def set_up(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.numpys = np.random.default_rng(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant == 0:
            return x.flip(random.choice((2, 3))) * random.gauss(0, 1)
        if self.variant == 1:
            return x[..., np.random.permutation(COLUMNS).tolist()]
        if self.variant == 2:
            return x[:, :, torch.randperm(ROWS, generator=self.generator)]
        if self.variant == 3:
            return x + torch.randn(x.shape, generator=self.generator) * torch.rand(())
        if self.variant == 4:
            return x * torch.tensor(self.numpys.random(CHANNELS), dtype=x.dtype)[:, None, None]
        return F.dropout(x, np.random.rand() / 2) if random.random() < 0.5 else x


class Counter(Part):
    def set_up(self) -> None:
        self.calls = 0
        self.temperature = 2.0
        self.register_buffer("seen", torch.tensor(0))
        self.dims = iter([2, 3, 3, 2] * 4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.temperature *= 0.5
        self.seen += 1
        if self.variant == 0:
            return x.flip(2 + self.calls % 2)
        if self.variant == 1:
            return (x / self.temperature).tanh()
        if self.variant == 2:
            return x.flip(2) if int(self.seen) == 2 else x
        if self.variant == 3:
            return x.flip(next(self.dims))
        return x * self.seen if self.calls > 1 else x


class Keeps(Part):
    def set_up(self) -> None:
        self.kept: Any = None
        self.log: list[Any] = []
        self.running = torch.zeros(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant == 0:
            self.kept = x.square().mean()
        elif self.variant == 1:
            self.kept = {"map": x, "deep": [x.mean((2, 3)).detach()]}
        elif self.variant == 2:
            self.log.append(x.detach().mean((0, 2, 3)))
        elif self.variant == 3:
            self.running.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        elif self.variant == 4:
            self.running = 0.5 * self.running + 0.5 * x.detach().std((0, 2, 3))
        else:
            before, self.kept = self.kept, x.detach()
            return x if before is None else x * before.sigmoid()
        return x * (1 + self.running[:, None, None].abs())


class Hooked(Part):
    def set_up(self) -> None:
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.calls = 0
        register = (
            lambda: self.layer.register_forward_hook(lambda m, i, o: o * 2),
            lambda: self.layer.register_forward_pre_hook(lambda m, i: (i[0] + 1,)),
            lambda: self.layer.register_full_backward_hook(lambda m, i, o: (i[0] * 3,)),
            lambda: self.layer.register_full_backward_pre_hook(lambda m, o: (o[0] * -1,)),
            lambda: self.layer.weight.register_hook(lambda gradient: gradient * 2),
            lambda: self.layer.register_forward_hook(self._count),
        )
        self.register = register[self.variant]
        self.register()

    def _count(self, *given: Any) -> None:
        self.calls += 1

    def change(self, index: int) -> None:
        if index == 2:
            self.register()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        if self.calls % 2 and x.requires_grad:
            x.register_hook(lambda gradient: gradient * 0.5)
        return x


class Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Scaled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        ctx.scale = scale
        ctx.save_for_backward(x)
        return x * 2, x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, other: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.scale + other * x, None


class CustomBackward(Part):
    def forward(self, x: Tensor) -> Tensor:
        if self.variant < 3:
            return Rounded.apply(x * 3)
        doubled, sign = Scaled.apply(x, -0.5 * self.variant)
        return doubled * sign


class Branches(Part):
    def set_up(self) -> None:
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant == 0:
            return x.flip(3) if x.mean() > 0 else x
        if self.variant == 1:
            return x / (1 + x.detach().abs().max().item())
        if self.variant == 2:
            return x.roll(int(x.detach().argmax()) % COLUMNS, 3)
        if self.variant == 3:
            return self.layer(x) if x.std() > 0.5 else x + self.layer(x)
        if self.variant == 4:
            return x.flip(2) if sum(x.detach().mean((1, 2, 3)).tolist()) > 0 else x
        for _ in range(4):
            if x.abs().max() < 1:
                break
            x = x / 2
        return x


class Modes(Part):
    def set_up(self) -> None:
        self.layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant == 0:
            with torch.no_grad():
                scale = self.layer(x).sigmoid()
            return x * scale
        if self.variant == 1:
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x).float()
        if self.variant < 4:
            block = lambda y: F.dropout(self.layer(y), 0.2, self.training)  # noqa: E731
            return checkpoint(block, x, use_reentrant=self.variant == 2)
        return self.layer(x) if torch.is_grad_enabled() else self.layer(x.flip(2))
