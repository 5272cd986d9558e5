"""Random architectures: real `nn` layers and tensor code, composed by hypothesis.

A strategy draws stage after stage for the activation at hand, a *map* (B, C, rows, columns) or
*tokens* (B, N, C). Each stage says what it leaves behind and how its labels compare with what the
Jacobian says of the flow of information (see :class:`Promise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Draw = Callable[..., object]


class Promise(IntEnum):
    """What the labels' sources at a position have to do with the Jacobian's; the least one counts.

    EQUAL: they are the same.
    SOUND: every source is one of the Jacobian's, which may have more: gates are ignored (contract,
        point 8), normalisation over positions is point-wise (point 5).
    NONE: labels are given to whole positions although channels hold different content (a split
        after a concatenation, point 7), or the rule is an approximation (max pooling).
    """

    NONE = 0
    SOUND = 1
    EQUAL = 2


@dataclass(frozen=True)
class State:
    """The activation between two stages.

    channels: the number of its channels.
    space: its sizes along positions: (rows, columns) of a map, (N,) of tokens.
    blended: its channels come from several streams and nothing has mixed them since.
    gate: its last non-linear step has a bounded range.
    """

    channels: int
    space: tuple[int, ...]
    blended: bool = False
    gate: bool = False

    @property
    def is_map(self) -> bool:
        return len(self.space) == 2


@dataclass(frozen=True)
class Stage:
    """A piece of a model, the activation that it leaves and what it promises."""

    module: nn.Module
    state: State
    promise: Promise = Promise.EQUAL
    prior: bool = False


@dataclass(frozen=True)
class Architecture:
    """A model over images (B, 2, rows, columns).

    channel_dim: the output's axis of channels.
    promise: how the labels of the output compare with the Jacobian.
    prior: whether something joins the positions without coming from the image.
    """

    model: nn.Module
    image_size: tuple[int, int]
    channel_dim: int
    promise: Promise
    prior: bool

    def __repr__(self) -> str:
        return f"Architecture(image_size={self.image_size}, {self.promise.name}, {self.model})"


IMAGE_CHANNELS = 2
LARGEST = 48
"""More positions than this make a test slow."""


# Modules that stages are made of.


class Code(nn.Module):
    """Tensor code as a module; its text is what a person reads in a failing example."""

    def __init__(self, text: str, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.text = text
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return eval(self.text, {"torch": torch, "F": F, "self": self, "x": x})

    def extra_repr(self) -> str:
        return repr(self.text)


class Attention(nn.Module):
    """Self-attention over (B, N, C) in one of many spellings."""

    def __init__(self, channels: int, heads: int, tokens: int, spelling: str, mask: str) -> None:
        super().__init__()
        self.heads = heads
        self.spelling = spelling
        self.mask = mask
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels // heads)
        self.drop = nn.Dropout(0.3)
        additive = torch.linspace(-1, 1, tokens * tokens).reshape(tokens, tokens)
        self.register_buffer("additive", additive)
        allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        self.register_buffer("allowed", allowed)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.norm(q), self.norm(k)
        mixed = getattr(self, f"_{self.spelling}")(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, channels))

    def _scores(self, scores: Tensor) -> Tensor:
        if self.mask == "additive":
            scores = scores + self.additive
        if self.mask in ("causal", "boolean"):
            scores = scores.masked_fill(~self.allowed, -math.inf)
        return self.drop(scores.softmax(-1))

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = {"additive": self.additive, "boolean": self.allowed}.get(self.mask)
        rate = self.drop.p if self.training else 0.0
        causal = self.mask == "causal"
        return F.scaled_dot_product_attention(q, k, v, mask, rate, causal, scale=0.5)

    def _written(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._scores(q @ k.transpose(-2, -1) * 0.5) @ v

    def _einsum(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self._scores(torch.einsum("bhqd,bhkd->bhqk", q * 0.5, k))
        return torch.einsum("bhqk,bhkd->bhqd", weights, v)

    def _summed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self._scores(q @ k.transpose(-2, -1) * 0.5)
        return (weights[..., None] * v[:, :, None]).sum(3)

    def _folded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Heads folded into the batch."""
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        weights = self._scores(torch.bmm(q, k.transpose(1, 2)))
        return torch.bmm(weights, v).unflatten(0, (-1, self.heads))

    def _folded_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        folded = (part.reshape(-1, *shape[2:]) for part in (q, k, v))
        return self._fused(*folded).view(shape)

    def _transposed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores with the keys first, values from the left."""
        weights = self._scores((k @ q.transpose(-2, -1)).transpose(-2, -1))
        return (v.transpose(-2, -1) @ weights.transpose(-2, -1)).transpose(-2, -1)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, {self.spelling}, mask={self.mask}"


class Windows(nn.Module):
    """A stage over tokens, inside windows of a map that is rolled before and back after."""

    def __init__(self, inner: nn.Module, window: tuple[int, int], shift: tuple[int, int]) -> None:
        super().__init__()
        self.inner = inner
        self.window = window
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        high, wide = self.window
        x = x.permute(0, 2, 3, 1)
        if any(self.shift):
            x = torch.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        x = x.view(batch, rows // high, high, columns // wide, wide, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, high * wide, channels)
        x = self.inner(x)
        x = x.view(-1, rows // high, columns // wide, high, wide, x.shape[-1])
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
        if any(self.shift):
            x = torch.roll(x, self.shift, (1, 2))
        return x.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}"


class Together(nn.Module):
    """Several branches of one activation, put together by tensor code over `y`, their list."""

    def __init__(self, branches: Sequence[nn.Module], text: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.text = text

    def forward(self, x: Tensor) -> Tensor:
        y = [branch(x) for branch in self.branches]
        return eval(self.text, {"torch": torch, "F": F, "x": x, "y": y})

    def extra_repr(self) -> str:
        return repr(self.text)


# Stages over maps and tokens.


def _pick(draw: Draw, *options: object) -> object:
    return draw(st.sampled_from(options))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _activation(draw: Draw, state: State) -> Stage:
    bounded = _pick(draw, False, False, True)
    kinds = (nn.Tanh, nn.Sigmoid, nn.Softsign) if bounded else (nn.GELU, nn.SiLU, nn.Softplus)
    return Stage(_pick(draw, *kinds)(), replace(state, gate=bounded))


def _dropout(draw: Draw, state: State) -> Stage:
    return Stage(nn.Dropout(0.2), state)


def _scale(draw: Draw, state: State) -> Stage:
    shape = (state.channels, 1, 1) if state.is_map else (state.channels,)
    text = _pick(draw, "x * self.gamma", "x + self.gamma", "self.gamma - x / 2", "-x")
    return Stage(Code(text, gamma=nn.Parameter(1 + torch.rand(shape))), state)


def _position_embedding(draw: Draw, state: State) -> Stage:
    shape = (1, state.channels, *state.space) if state.is_map else (1, *state.space, state.channels)
    return Stage(Code("x + self.embedding", embedding=nn.Parameter(torch.randn(shape))), state)


def _mlp(draw: Draw, state: State) -> Stage:
    width = _pick(draw, 3, 7)
    channels = _pick(draw, state.channels, 5, 6)
    after = replace(state, channels=channels, blended=False, gate=False)
    if not state.is_map:
        return Stage(
            nn.Sequential(nn.Linear(state.channels, width), nn.GELU(), nn.Linear(width, channels)),
            after,
        )
    first, second = nn.Linear(state.channels, width), nn.Linear(width, channels)
    texts = (
        "self.second(F.gelu(self.first(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)",
        "self.second(F.gelu(self.first(x.movedim(1, -1)))).movedim(-1, 1)",
        "self.second(F.gelu(self.first(x.flatten(2).mT))).mT.unflatten(2, x.shape[2:])",
        "torch.einsum('bchw,oc->bohw', x, self.second.weight @ self.first.weight)",
    )
    return Stage(Code(_pick(draw, *texts), first=first, second=second), after)


def _convolution(draw: Draw, state: State) -> Stage:
    kernel = [int(_pick(draw, 1, 2, 3, 5)) for _ in state.space]
    dilation = [int(_pick(draw, 1, 1, 2)) for _ in state.space]
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    # A window that lies in the padding alone sees no position of the image.
    padding = [
        draw(st.integers(0, (k - 1) * d if k > 1 else 0))
        for k, d in zip(kernel, dilation, strict=True)
    ]
    padding = [p if p < size else 0 for p, size in zip(padding, state.space, strict=True)]
    stride = [int(_pick(draw, 1, 1, 2, 3)) for _ in state.space]
    for dim, size in enumerate(state.space):
        if size + 2 * padding[dim] < extent[dim]:
            kernel[dim] = dilation[dim] = stride[dim] = extent[dim] = 1
            padding[dim] = 0
    groups = int(_pick(draw, 1, *_divisors(state.channels)))
    out = max(2, groups * int(_pick(draw, 1, 2)))  # one channel is told from positions nowhere
    mode = "zeros"
    if all(p < size for p, size in zip(padding, state.space, strict=True)):
        mode = _pick(draw, "zeros", "zeros", "reflect", "replicate", "circular")
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    layer = kind(state.channels, out, kernel, stride, padding, dilation, groups, padding_mode=mode)
    space = tuple(
        (size + 2 * p - e) // s + 1
        for size, p, e, s in zip(state.space, padding, extent, stride, strict=True)
    )
    after = State(out, space, blended=state.blended and groups > 1)
    module = layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer)
    return Stage(module, after)


def _same_convolution(draw: Draw, state: State) -> Stage:
    kernel = [int(_pick(draw, 1, 3, 4)) for _ in state.space]
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    groups = int(_pick(draw, 1, state.channels))
    layer = kind(state.channels, state.channels, kernel, padding="same", groups=groups)
    after = replace(state, blended=state.blended and groups > 1, gate=False)
    return Stage(layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer), after)


def _patches(draw: Draw, state: State) -> Stage:
    """Patch embedding: kernel and stride are the same."""
    kernel = [int(_pick(draw, *[d for d in _divisors(s) if d <= 3])) for s in state.space]
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    layer = kind(state.channels, 6, kernel, kernel)
    space = tuple(size // k for size, k in zip(state.space, kernel, strict=True))
    return Stage(
        layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer), State(6, space)
    )


def _normalisation(draw: Draw, state: State) -> Stage:
    channels = state.channels
    # One channel by itself is normalised to a constant: no information is left.
    alone = Promise.NONE if channels == 1 else Promise.EQUAL
    if not state.is_map:
        layer = _pick(draw, nn.LayerNorm(channels), nn.RMSNorm(channels))
        return Stage(_shifted(layer), replace(state, gate=False), alone)
    choice = _pick(draw, "batch", "layer", "group", "instance")
    if choice == "layer":
        text = "self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
        layer = _shifted(nn.LayerNorm(channels))
        return Stage(Code(text, layer=layer), replace(state, gate=False), alone)
    layers = {
        "batch": nn.BatchNorm2d(channels),
        "group": nn.GroupNorm(1, channels),
        "instance": nn.InstanceNorm2d(channels),
    }
    if prod(state.space) < 2:
        choice = "batch"
    promise = Promise.EQUAL if choice == "batch" else Promise.SOUND
    if choice == "instance":  # the sum of a map is nought after it: a later mean tells nothing
        promise = Promise.NONE
    return Stage(_shifted(layers[choice]), replace(state, gate=False), promise)


def _shifted(layer: nn.Module) -> nn.Module:
    """The layer with parameters that are no longer ones and zeros."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter))
    return layer


def _pooling(draw: Draw, state: State) -> Stage:
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [int(_pick(draw, 1, 2, 3)) for _ in state.space]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    ceil = draw(st.booleans())
    choice = _pick(draw, "average", "largest") if state.is_map else "average"
    count = len(state.space)
    if choice == "average":
        kind = nn.AvgPool2d if count == 2 else nn.AvgPool1d
        layer = kind(kernel, stride, padding, ceil, draw(st.booleans()))
    else:
        dilation = [
            int(_pick(draw, 1, 2)) if size >= 2 * k else 1
            for size, k in zip(state.space, kernel, strict=True)
        ]
        layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    with torch.no_grad():
        space = tuple(layer(torch.zeros(1, 1, *state.space)).shape[2:])
    after = replace(state, space=space)
    module = layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer)
    return Stage(module, after, Promise.EQUAL if choice == "average" else Promise.NONE)


def _adaptive_pooling(draw: Draw, state: State) -> Stage:
    space = tuple(draw(st.integers(1, size)) for size in state.space)
    kind = nn.AdaptiveAvgPool2d if state.is_map else nn.AdaptiveAvgPool1d
    layer = kind(space)
    module = layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer)
    return Stage(module, replace(state, space=space))


def _moved(draw: Draw, state: State) -> Stage:
    """Positions rolled, reversed, cut, chosen, cut apart and joined again."""
    first = 2 if state.is_map else 1
    dim = first + draw(st.integers(0, len(state.space) - 1))
    size = state.space[dim - first]
    options: list[tuple[str, int]] = [
        (f"torch.roll(x, {draw(st.integers(-3, 3))}, {dim})", size),
        (f"x.flip({dim})", size),
    ]
    if size > 1:
        cut = draw(st.integers(1, size - 1))
        options += [
            (f"x.narrow({dim}, {cut}, {size - cut})", size - cut),
            (f"torch.cat(x.split([{cut}, {size - cut}], {dim})[::-1], {dim})", size),
            (f"torch.cat([x, x.narrow({dim}, 0, {cut})], {dim})", size + cut),
            (f"x.narrow({dim}, 0, {cut}) + x.narrow({dim}, {size - cut}, {cut})", cut),
        ]
        colons = ", ".join(":" for _ in range(dim))
        options += [(f"x[{colons}, ::2]", (size + 1) // 2), (f"x[{colons}, 1:]", size - 1)]
        options += [(f"x.index_select({dim}, self.index)", 3)]
    if size % 2 == 0:
        half = f"x.unflatten({dim}, (2, {size // 2}))"
        options += [
            (f"{half}.flip({dim}).flatten({dim}, {dim + 1})", size),
            (f"{half}.transpose({dim}, {dim + 1}).flatten({dim}, {dim + 1})", size),
            (f"{half}.mean({dim})", size // 2),
            (f"{half}.select({dim}, 1)", size // 2),
        ]
    text, after = draw(st.sampled_from(options))
    space = list(state.space)
    space[dim - first] = after
    index = torch.tensor([draw(st.integers(0, size - 1)) for _ in range(3)])
    return Stage(Code(text, index=index), replace(state, space=tuple(space)))


def _zero_padding(draw: Draw, state: State) -> Stage:
    """Zeros around the positions: they carry the prior."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    widths = (before, after) if state.is_map else (0, 0, before, after)
    space = (*state.space[:-1], state.space[-1] + before + after)
    return Stage(
        Code(f"F.pad(x, {widths})"), replace(state, space=space), prior=bool(before or after)
    )


def _copied_padding(draw: Draw, state: State) -> Stage:
    width = draw(st.integers(0, min(2, min(state.space) - 1)))
    mode = _pick(draw, "reflect", "replicate", "circular")
    count = len(state.space)
    widths = (width, 0) * count
    text = f"F.pad(x, {widths}, mode={mode!r})"
    if not state.is_map:
        text = f"F.pad(x.mT, {widths}, mode={mode!r}).mT"
    return Stage(Code(text), replace(state, space=tuple(size + width for size in state.space)))


def _self_attention(draw: Draw, state: State) -> Stage:
    """Over tokens."""
    tokens = prod(state.space)
    heads = int(_pick(draw, *_divisors(state.channels)))
    spellings: tuple[str, ...] = (
        "fused",
        "written",
        "einsum",
        "folded",
        "folded_fused",
        "transposed",
        "module",
    )
    if heads < state.channels:  # values of one feature might as well be a factor of the scores
        spellings += ("summed",)
    spelling = str(_pick(draw, *spellings))
    after = replace(state, blended=False, gate=False)
    if spelling == "module":
        layer = nn.MultiheadAttention(state.channels, heads, dropout=0.1, batch_first=True)
        whole = bool(draw(st.booleans()))
        return Stage(Code(f"self.layer(x, x, x, need_weights={whole})[0]", layer=layer), after)
    mask = str(_pick(draw, "none", "additive", "boolean", "causal"))
    return Stage(Attention(state.channels, heads, tokens, spelling, mask), after)


def _pooled_attention(draw: Draw, state: State) -> Stage:
    """Queries are the tokens, keys and values fewer of them (PVT, class attention)."""
    channels, heads = state.channels, int(_pick(draw, *_divisors(state.channels)))
    queries = str(_pick(draw, "x", "x[:, :1]", "x.mean(1, True)"))
    keys = str(_pick(draw, "x", "F.adaptive_avg_pool1d(x.mT, 2).mT", "x[:, ::2]"))
    text = (
        f"self.out((lambda q, k, v: F.scaled_dot_product_attention(q, k, v))"
        f"(self.q({queries}).unflatten(2, ({heads}, -1)).transpose(1, 2),"
        f" *self.kv({keys}).unflatten(2, (2, {heads}, -1)).permute(2, 0, 3, 1, 4).unbind(0))"
        f".transpose(1, 2).flatten(2))"
    )
    parts = {
        "q": nn.Linear(channels, channels),
        "kv": nn.Linear(channels, 2 * channels),
        "out": nn.Linear(channels, channels),
    }
    after = replace(state, blended=False, gate=False)
    if queries != "x":
        after = replace(after, space=(1,))
    return Stage(Code(text, **parts), after, _coarse(queries, keys))


def _coarse(queries: str, keys: str) -> Promise:
    """Queries that are no keys are read, and carry nothing (contract, point 9)."""
    return Promise.EQUAL if keys != "x[:, ::2]" else Promise.SOUND


def _axial(draw: Draw, state: State) -> Stage:
    """Tokens of each row, or each column: the others go into the batch."""
    rows, columns = state.space
    along_rows = draw(st.booleans())
    tokens = rows if along_rows else columns
    inner = draw(st.sampled_from([_self_attention, _same_convolution, _fixed_token_mixing]))(
        draw, State(state.channels, (tokens,), state.blended, state.gate)
    )
    order = (0, 3, 2, 1) if along_rows else (0, 2, 3, 1)
    other = columns if along_rows else rows
    back = (0, 3, 2, 1) if along_rows else (0, 3, 1, 2)
    text = (
        f"self.inner(x.permute({order}).flatten(0, 1)).unflatten(0, (-1, {other})).permute({back})"
    )
    return Stage(
        Code(text, inner=inner.module), replace(inner.state, space=state.space), inner.promise
    )


def _talking_heads(draw: Draw, state: State) -> Stage:
    """Written-out attention with a linear layer over heads before and after the softmax."""
    channels = state.channels
    heads = int(_pick(draw, *_divisors(channels)))
    text = (
        "(lambda q, k, v: ((lambda w: (self.after(w.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))"
        "(self.before((q @ k.mT).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)) @ v))"
        f"(*self.qkv(x).unflatten(2, (3, {heads}, -1)).permute(2, 0, 3, 1, 4)).transpose(1, 2)"
        ".flatten(2)"
    )
    parts = {
        "qkv": nn.Linear(channels, 3 * channels),
        "before": nn.Linear(heads, heads),
        "after": nn.Linear(heads, heads),
    }
    return Stage(Code(text, **parts), replace(state, blended=False, gate=False))


def _cosine_attention(draw: Draw, state: State) -> Stage:
    """Normalised queries and keys, a table of biases, a mask over windows."""
    tokens = prod(state.space)
    text = (
        "(lambda q, k, v: ((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT) * self.scale.exp()"
        " + self.table[self.index]).softmax(-1) @ v)(*self.qkv(x).chunk(3, -1))"
    )
    parts: dict[str, nn.Module | Tensor] = {
        "qkv": nn.Linear(state.channels, 3 * state.channels),
        "scale": nn.Parameter(torch.zeros(1)),
        "table": nn.Parameter(torch.randn(7)),
        "index": torch.arange(tokens * tokens).reshape(tokens, tokens) % 7,
    }
    return Stage(Code(text, **parts), replace(state, blended=False, gate=False))


def _spatial_gate(draw: Draw, state: State) -> Stage:
    """gMLP: one half of the channels is mixed over tokens and multiplies the other."""
    tokens = prod(state.space)
    text = str(
        _pick(
            draw,
            "(lambda u, v: u * self.mix(v.mT).mT)(*self.wide(x).chunk(2, -1))",
            "(lambda u, v: F.silu(u) * self.mix(v.mT).mT)(*self.wide(x).split(3, -1))",
            "F.glu(self.wide(x), -1)",
        )
    )
    parts = {"wide": nn.Linear(state.channels, 6), "mix": nn.Linear(tokens, tokens)}
    after = State(3, state.space)
    return Stage(Code(text, **parts), after, Promise.SOUND)


def _global_context(draw: Draw, state: State) -> Stage:
    """A mean over all positions goes back to every one of them."""
    dims = (2, 3) if state.is_map else (1,)
    channel = 1 if state.is_map else 2
    count = prod(state.space)  # values stay small: an activation that is flat reads nothing
    texts = (
        f"x + x.mean({dims}, keepdim=True)",
        f"(x / {count}).sum({dims}, keepdim=True).expand_as(x)",
        f"x - 0.618 * x.mean({dims}, keepdim=True)",
        f"torch.cat([x, x.mean({dims}, keepdim=True).expand_as(x)], {channel})",
        f"x * ((x / {count}).norm(dim={dims}, keepdim=True) + 1)",
    )
    text = str(_pick(draw, *texts))
    wide = state.channels * (2 if "cat" in text else 1)
    promise = Promise.SOUND if "norm" in text else Promise.EQUAL
    blended = state.blended or "cat" in text
    after = replace(state, channels=wide, blended=blended, gate=False)
    return Stage(Code(text), after, promise)


def _squeeze_excite(draw: Draw, state: State) -> Stage:
    dims = (2, 3) if state.is_map else (1,)
    layer = nn.Conv2d if state.is_map else nn.Linear
    one = (1,) if state.is_map else ()
    parts = {
        "less": layer(state.channels, 2, *one),
        "more": layer(2, state.channels, *one),
    }
    gate = str(_pick(draw, "torch.sigmoid", "F.hardsigmoid", "torch.tanh", "F.gelu"))
    text = f"x * {gate}(self.more(F.silu(self.less(x.mean({dims}, keepdim=True)))))"
    return Stage(Code(text, **parts), replace(state, gate=False), Promise.SOUND)


def _drop_path(draw: Draw, state: State) -> Stage:
    dims = ", ".join("1" for _ in range(len(state.space) + 1))
    text = f"x * x.new_empty(x.shape[0], {dims}).bernoulli_(0.8) if self.training else x"
    return Stage(Code(text), state)


def _in_place(draw: Draw, state: State) -> Stage:
    texts = (
        "F.silu(x * 1.5, inplace=True)",
        "(x * 1.9).add_(x.flip(-2))",
        "(x * 2).mul_(0.5).add_(1)",
        "(x + 1).sub_(x.roll(1, -2), alpha=0.271)",
        "(x + 1).sigmoid_()",
    )
    text = str(_pick(draw, *texts))
    return Stage(Code(text), replace(state, gate="sigmoid" in text))


def _predicted_mixing(draw: Draw, state: State) -> Stage:
    """Weights that each token says by itself, times values, summed over all (Synthesizer)."""
    softmax = str(_pick(draw, "", ".softmax(-1)"))
    texts = (
        "({}[..., None] * x[:, None]).sum(2)",
        "(x[:, None] * {}[..., None] * 0.3).mean(2)",
        "{} @ x",
    )
    text = str(_pick(draw, *texts)).format(f"self.weigh(x){softmax}")
    weigh = nn.Linear(state.channels, prod(state.space))
    promise = Promise.SOUND if state.blended else Promise.EQUAL
    return Stage(Code(text, weigh=weigh), replace(state, gate=False), promise)


def _involution(draw: Draw, state: State) -> Stage:
    """A kernel for each position, predicted there."""
    grouped = int(_pick(draw, *_divisors(state.channels)))
    text = (
        f"(F.unfold(x, 3, padding=1).view(len(x), {grouped}, -1, 9, *x.shape[2:])"
        f" * self.weigh(x).view(len(x), {grouped}, 1, 9, *x.shape[2:])).sum(3).view_as(x)"
    )
    weigh = nn.Conv2d(state.channels, 9 * grouped, 1)
    promise = Promise.SOUND if state.blended else Promise.EQUAL
    return Stage(Code(text, weigh=weigh), replace(state, gate=False), promise, prior=True)


def _token_mixing(draw: Draw, state: State) -> Stage:
    """MLP-Mixer's and ResMLP's linear layers over positions."""
    tokens = prod(state.space)
    hidden = nn.Linear(tokens, 5)
    out = int(_pick(draw, tokens, 4, 7))
    back = nn.Linear(5, out)
    texts = (
        "self.back(F.gelu(self.hidden(x.mT))).mT",
        "self.one(x.transpose(1, 2)).transpose(1, 2)",
        "torch.einsum('on,bnc->boc', self.one.weight, x)",
        "self.one.weight @ x",
        "F.conv1d(x, self.one.weight[:, :, None])",
    )
    one = nn.Linear(tokens, out)
    return Stage(
        Code(_pick(draw, *texts), hidden=hidden, back=back, one=one),
        replace(state, space=(out,), gate=False),
    )


def _axis_mixing(draw: Draw, state: State) -> Stage:
    """A linear layer over the rows or the columns of a map."""
    rows, columns = state.space
    if draw(st.booleans()):
        return Stage(nn.Linear(columns, columns), replace(state, gate=False))
    layer = nn.Linear(rows, rows)
    return Stage(Code("self.layer(x.mT).mT", layer=layer), replace(state, gate=False))


def _class_token(draw: Draw, state: State) -> Stage:
    texts = (
        "torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)",
        "torch.cat([x, self.token.expand(len(x), -1, -1)], dim=-2)",
    )
    token = nn.Parameter(torch.randn(1, 1, state.channels))
    after = replace(state, space=(state.space[0] + 1,), gate=False)
    return Stage(Code(_pick(draw, *texts), token=token), after, prior=True)


def _windows(draw: Draw, state: State) -> Stage:
    rows, columns = state.space
    high, wide = int(_pick(draw, *_divisors(rows))), int(_pick(draw, *_divisors(columns)))
    shift = (draw(st.integers(0, high - 1)), draw(st.integers(0, wide - 1)))
    inner = draw(st.sampled_from([_self_attention, _same_convolution, _mlp, _fixed_token_mixing]))(
        draw, State(state.channels, (high * wide,), state.blended, state.gate)
    )
    after = replace(inner.state, space=state.space)
    return Stage(Windows(inner.module, (high, wide), shift), after, inner.promise)


def _fixed_token_mixing(draw: Draw, state: State) -> Stage:
    tokens = state.space[0]
    layer = nn.Linear(tokens, tokens)
    text = _pick(draw, "self.layer(x.mT).mT", "torch.einsum('bnc,on->boc', x, self.layer.weight)")
    return Stage(Code(text, layer=layer), replace(state, gate=False))


def _merging(draw: Draw, state: State) -> Stage:
    """Neighbouring positions are put side by side in the channels and reduced."""
    channels = state.channels
    if not state.is_map:
        step = int(_pick(draw, *[d for d in _divisors(state.space[0]) if d <= 4]))
        layer = nn.Linear(step * channels, 5)
        tokens = state.space[0] // step
        text = f"self.layer(x.reshape(x.shape[0], {tokens}, {step * channels}))"
        return Stage(Code(text, layer=layer), State(5, (tokens,)))
    rows, columns = state.space
    high, wide = (int(_pick(draw, *[d for d in _divisors(s) if d <= 3])) for s in state.space)
    layer = nn.Linear(high * wide * channels, 5)
    plain = bool(draw(st.booleans())) or high * wide * channels == 1  # one value: a constant
    norm = nn.Identity() if plain else nn.LayerNorm(high * wide * channels)
    viewed = (
        f"x.view(x.shape[0], {channels}, {rows // high}, {high}, {columns // wide}, {wide})"
        f".permute(0, 2, 4, 3, 5, 1).flatten(3)"
    )
    slices = ", ".join(
        f"x.permute(0, 2, 3, 1)[:, {row}::{high}, {column}::{wide}]"
        for column in range(wide)
        for row in range(high)
    )
    merged = _pick(draw, viewed, f"torch.cat([{slices}], -1)")
    text = f"self.layer(self.norm({merged})).permute(0, 3, 1, 2)"
    return Stage(Code(text, layer=layer, norm=norm), State(5, (rows // high, columns // wide)))


def _counts(
    space: Sequence[int], kernel: list[int], stride: list[int], pad: list[int]
) -> list[int]:
    sliding = zip(space, kernel, stride, pad, strict=True)
    return [(size + 2 * p - k) // s + 1 for size, k, s, p in sliding]


def _windows_to_tokens(draw: Draw, state: State) -> Stage:
    """Patches that may overlap, each a token (T2T-ViT, TNT)."""
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [int(_pick(draw, 1, 2, 3)) for _ in state.space]
    padding = [draw(st.integers(0, k - 1)) for k in kernel]
    layer = nn.Linear(state.channels * prod(kernel), 5)
    text = f"self.layer(F.unfold(x, {kernel}, 1, {padding}, {stride}).mT)"
    space = (prod(_counts(state.space, kernel, stride, padding)),)
    return Stage(Code(text, layer=layer), State(5, space), prior=any(padding))


def _mixed_windows(draw: Draw, state: State) -> Stage:
    """Windows that overlap, mixed inside and laid back over one another (VOLO's outlooker)."""
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    padding = [draw(st.integers(0, (k - 1) // 2)) for k in kernel]
    count, size = prod(_counts(state.space, kernel, [1, 1], padding)), prod(kernel)
    text = (
        f"F.fold(torch.einsum('ot,bctw->bcow', self.mix, F.unfold(x, {kernel}, padding={padding})"
        f".unflatten(1, ({state.channels}, {size}))).reshape(-1, {state.channels * size}, {count}),"
        f" {state.space}, {kernel}, padding={padding})"
    )
    mix = nn.Parameter(torch.randn(size, size))
    return Stage(Code(text, mix=mix), replace(state, gate=False), prior=any(padding))


def _haloed_windows(draw: Draw, state: State) -> Stage:
    """Windows along rows and columns, as axes of their own; each becomes one position."""
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [int(_pick(draw, 1, 2)) for _ in state.space]
    space = _counts(state.space, kernel, stride, [0, 0])
    cut = "x" + "".join(f".unfold({2 + i}, {kernel[i]}, {stride[i]})" for i in range(2))
    text = str(_pick(draw, f"{cut}.sum((4, 5))", f"self.layer({cut}.flatten(4))[..., 0]"))
    layer = nn.Linear(prod(kernel), 2)
    return Stage(Code(text, layer=layer), replace(state, space=tuple(space), gate=False))


def _unshuffled_convolution(draw: Draw, state: State) -> Stage:
    """Blocks of positions go into the channels, and a convolution slides over what is left."""
    high, wide = (int(_pick(draw, *[d for d in _divisors(s) if d <= 3])) for s in state.space)
    rows, columns = state.space[0] // high, state.space[1] // wide
    blocks = f"x.unflatten(3, ({columns}, {wide})).unflatten(2, ({rows}, {high}))"
    order = _pick(draw, (0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4))
    layer = nn.Conv2d(state.channels * high * wide, 4, (3, 1), padding=(1, 0))
    text = f"self.layer({blocks}.permute({order}).flatten(1, 3))"
    return Stage(Code(text, layer=layer), State(4, (rows, columns)))


def _recurrent(draw: Draw, state: State) -> Stage:
    """Over tokens, in one direction or both, layer after layer; or what is left at the end."""
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    both, first = bool(draw(st.booleans())), bool(draw(st.booleans()))
    layers = int(_pick(draw, 1, 2))
    layer = kind(state.channels, 3, layers, batch_first=first, bidirectional=both)
    moved = "x" if first else "x.transpose(0, 1)"
    if draw(st.booleans()):
        text = f"self.layer({moved})[0]" + ("" if first else ".transpose(0, 1)")
        return Stage(Code(text, layer=layer), State(6 if both else 3, state.space, gate=True))
    last = "[1][0]" if kind is nn.LSTM else "[1]"
    text = f"self.layer({moved}){last}[-1][:, None]"
    return Stage(Code(text, layer=layer), State(3, (1,), gate=True))


def _relative_positions(draw: Draw, state: State) -> Stage:
    """Scores for each distance, shifted row by row until they stand in the places of keys."""
    (tokens,) = state.space
    apart = 2 * tokens - 1
    shifted = (
        f"F.pad(F.pad(q @ self.distances, (0, 1)).flatten(1), (0, {tokens - 1}))"
        f".reshape(-1, {tokens + 1}, {apart})[:, :{tokens}, {tokens - 1}:]"
    )
    added = _pick(draw, f"q @ k.mT * 0.5 + {shifted}", f"{shifted} + 2 * (q @ k.mT)")
    text = f"(lambda q, k, v: ({added}).softmax(-1) @ v)(*self.qkv(x).chunk(3, -1))"
    parts: dict[str, nn.Module | Tensor] = {
        "qkv": nn.Linear(state.channels, 3 * state.channels),
        "distances": nn.Parameter(torch.randn(state.channels, apart)),
    }
    return Stage(Code(text, **parts), replace(state, blended=False, gate=False))


def _resampling(draw: Draw, state: State) -> Stage:
    """Interpolation by a whole factor, or to any size."""
    times = [int(_pick(draw, 1, 2, 3)) for _ in state.space]
    whole = bool(draw(st.booleans()))
    space = [size * n for size, n in zip(state.space, times, strict=True)]
    if not whole:
        space = [max(1, size - draw(st.integers(-2, 2))) for size in state.space]
    modes = ("nearest", "nearest-exact", "bilinear", "bicubic")
    mode = str(_pick(draw, *(modes if state.is_map else ("nearest", "nearest-exact", "linear"))))
    settings = f"size={tuple(space)}, mode={mode!r}"
    if whole and draw(st.booleans()):
        settings = f"scale_factor={tuple(map(float, times))}, mode={mode!r}"
    if "nearest" not in mode:
        settings += f", align_corners={draw(st.booleans())}"
    if mode.startswith("bi"):
        settings += f", antialias={draw(st.booleans())}"
    exact = whole and "align_corners=True" not in settings and "antialias=True" not in settings
    text = f"F.interpolate({'x' if state.is_map else 'x.mT'}, {settings})"
    after = replace(state, space=tuple(space))
    # Weights that only rounding tells from zero differ between single and double precision.
    promise = Promise.EQUAL if exact else Promise.NONE
    return Stage(Code(text if state.is_map else f"{text}.mT"), after, promise)


def _transposed_convolution(draw: Draw, state: State) -> Stage:
    kernel = [int(_pick(draw, 1, 2, 3)) for _ in state.space]
    stride = [int(_pick(draw, 1, 2, 3)) for _ in state.space]
    dilation = [int(_pick(draw, 1, 1, 2)) for _ in state.space]
    padding = [draw(st.integers(0, k - 1)) for k in kernel]
    extra = [int(_pick(draw, 0, 0, s - 1)) for s in stride]
    groups = int(_pick(draw, *_divisors(state.channels)))
    out = max(2, groups * int(_pick(draw, 1, 2)))  # one channel is told from positions nowhere
    space = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(
            state.space, stride, padding, dilation, kernel, extra, strict=True
        )
    )
    if min(space) < 1:
        return _same_convolution(draw, state)
    kind = nn.ConvTranspose2d if state.is_map else nn.ConvTranspose1d
    layer = kind(
        state.channels, out, kernel, stride, padding, extra, groups=groups, dilation=dilation
    )
    # A position that no input reaches takes the mean of all, although it holds the bias alone.
    settings = zip(kernel, stride, dilation, extra, strict=True)
    reached = all(k >= s and d == 1 and e == 0 for k, s, d, e in settings)
    module = layer if state.is_map else Code("self.layer(x.mT).mT", layer=layer)
    after = State(out, space, blended=state.blended and groups > 1)
    return Stage(module, after, Promise.EQUAL if reached else Promise.NONE)


def _repetition(draw: Draw, state: State) -> Stage:
    """Positions or channels more than once.

    A single position repeated beside others is one label throughout, and an error for convolutions.
    """
    rank = len(state.space) + 2
    sizes = (state.channels, *state.space) if state.is_map else (*state.space, state.channels)
    dim = draw(st.sampled_from([axis for axis, size in enumerate(sizes, 1) if size > 1]))
    counts = ", ".join("2" if axis == dim else "1" for axis in range(rank))
    texts = (f"x.repeat({counts})", f"x.tile({counts})", f"x.repeat_interleave(2, {dim})")
    text = str(_pick(draw, *texts))
    if dim == (1 if state.is_map else 2):
        return Stage(Code(text), replace(state, channels=2 * state.channels))
    space = list(state.space)
    space[dim - (2 if state.is_map else 1)] *= 2
    return Stage(Code(text), replace(state, space=tuple(space)))


def _to_tokens(draw: Draw, state: State) -> Stage:
    texts = (
        "x.flatten(2).transpose(1, 2)",
        "x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])",
        "x.flatten(2).permute(0, 2, 1)",
        "x.transpose(2, 3).flatten(2).mT",
    )
    return Stage(Code(_pick(draw, *texts)), replace(state, space=(prod(state.space),)))


def _to_map(draw: Draw, state: State) -> Stage:
    (tokens,) = state.space
    rows = int(_pick(draw, *_divisors(tokens)))
    columns = tokens // rows
    texts = (
        f"x.transpose(1, 2).reshape(x.shape[0], -1, {rows}, {columns})",
        f"x.view(-1, {rows}, {columns}, x.shape[-1]).permute(0, 3, 1, 2).contiguous()",
        f"x.mT.unflatten(2, ({rows}, {columns}))",
        f"x.unflatten(1, ({columns}, {rows})).permute(0, 3, 2, 1)",
    )
    return Stage(Code(_pick(draw, *texts)), replace(state, space=(rows, columns)))


# Stages made of stages.


def _all(stages: Sequence[Stage]) -> dict[str, object]:
    return {
        "promise": min(stage.promise for stage in stages),
        "prior": any(stage.prior for stage in stages),
    }


def _same_shape(draw: Draw, state: State, depth: int) -> Stage:
    """A short chain that leaves channels and sizes as they are."""
    stages: list[Stage] = []
    for _ in range(draw(st.integers(1, 2))):
        stage = _stage(draw, stages[-1].state if stages else state, depth + 1)
        stages.append(stage)
    after = stages[-1].state
    if after.is_map != state.is_map or after.space != state.space:
        stages = [_same_convolution(draw, state)]
    elif after.channels != state.channels:
        back: nn.Module = nn.Linear(after.channels, state.channels)
        if state.is_map:
            back = nn.Conv2d(after.channels, state.channels, 1)
        stages.append(
            Stage(back, replace(after, channels=state.channels, blended=False, gate=False))
        )
    chain = nn.Sequential(*(stage.module for stage in stages))
    return Stage(chain, stages[-1].state, **_all(stages))


def _residual(draw: Draw, state: State, depth: int) -> Stage:
    """Trees of sums."""
    count = draw(st.integers(1, 3))
    branches = [_same_shape(draw, state, depth) for _ in range(count)]
    texts = {
        # No two terms of a model cancel exactly: coefficients of this file have no common sums.
        1: (
            "x + y[0]",
            "y[0] - 0.733 * x",
            "x.add(y[0], alpha=0.314)",
            "torch.lerp(x, y[0], 0.368)",
        ),
        2: ("x + (y[0] + y[1])", "(x + y[0]) + y[1]", "y[0] + y[1]", "sum(y) + x.mean(-1, True)"),
        3: ("(x + y[0]) + (y[1] + y[2])", "torch.stack(y).sum(0)", "y[0] + y[1] + y[2]"),
    }[count]
    after = replace(
        state, blended=state.blended or any(b.state.blended for b in branches), gate=False
    )
    text = str(_pick(draw, *texts))
    facts = _all(branches)
    if "mean(-1" in text and not state.is_map:
        text = text.replace("mean(-1", "mean(1")
    return Stage(Together([b.module for b in branches], text), after, **facts)


def _gated(draw: Draw, state: State, depth: int) -> Stage:
    """Products of streams."""
    one = _same_shape(draw, state, depth)
    facts = _all([one])
    facts["promise"] = min(Promise.SOUND, one.promise)
    mean = "y[0].mean((2, 3), keepdim=True)" if state.is_map else "y[0].mean(1, True)"
    text = str(
        _pick(
            draw,
            "x * y[0].sigmoid()",
            f"x * {mean}.sigmoid()",
            "torch.tanh(x + 0.3) * y[0]",
            "(x + 0.3) * y[0]",
        )
    )
    after = replace(state, blended=True, gate=False)
    return Stage(Together([one.module], text), after, **facts)


def _concatenated(draw: Draw, state: State, depth: int) -> Stage:
    branches = [_same_shape(draw, state, depth) for _ in range(draw(st.integers(1, 2)))]
    dim = 1 if state.is_map else 2
    pieces = ["x", *(f"y[{index}]" for index in range(len(branches)))]
    if draw(st.booleans()):
        pieces[-1] += f".narrow({dim}, 0, 1)"
        width = state.channels * (len(pieces) - 1) + 1
    else:
        width = state.channels * len(pieces)
    text = f"torch.cat([{', '.join(pieces)}], {dim})"
    facts = _all(branches)
    # One channel of a blended branch may hold less than its label says.
    if "narrow" in text and branches[-1].state.blended:
        facts["promise"] = Promise.NONE
    after = replace(state, channels=width, blended=True, gate=False)
    return Stage(Together([b.module for b in branches], text), after, **facts)


def _joined_tokens(draw: Draw, state: State, depth: int) -> Stage:
    one = _same_shape(draw, state, depth)
    text = str(_pick(draw, "torch.cat([x, y[0]], 1)", "torch.cat([x.mean(1, True), y[0]], 1)"))
    added = 1 if "mean" in text else state.space[0]
    after = replace(
        state,
        space=(state.space[0] + added,),
        blended=state.blended or one.state.blended,
        gate=False,
    )
    return Stage(Together([one.module], text), after, **_all([one]))


def _split(draw: Draw, state: State, depth: int) -> Stage:
    """Channels are split, one half goes on, and both are joined again (ShuffleNet, CSP)."""
    half = state.channels // 2
    dim = 1 if state.is_map else 2
    one = _same_shape(draw, replace(state, channels=half), depth)
    text = f"torch.cat([y[0], x.narrow({dim}, {half}, {state.channels - half})], {dim})"
    narrowed = nn.Sequential(
        Code(f"x.chunk(2, {dim})[0]" if state.channels % 2 == 0 else f"x.narrow({dim}, 0, {half})"),
        one.module,
    )
    facts = _all([one])
    if state.blended:
        facts["promise"] = Promise.NONE
    return Stage(Together([narrowed], text), replace(state, blended=True, gate=False), **facts)


ANY = (
    _activation,
    _convolution,
    _dropout,
    _mlp,
    _moved,
    _normalisation,
    _position_embedding,
    _pooling,
    _same_convolution,
    _scale,
    _zero_padding,
    _copied_padding,
    _merging,
    _patches,
    _adaptive_pooling,
    _global_context,
    _squeeze_excite,
    _drop_path,
    _in_place,
    _resampling,
    _transposed_convolution,
    _repetition,
)
OF_MAPS = (
    _axis_mixing,
    _windows,
    _axial,
    _to_tokens,
    _windows_to_tokens,
    _mixed_windows,
    _haloed_windows,
    _unshuffled_convolution,
    _involution,
)
OF_TOKENS = (
    _self_attention,
    _pooled_attention,
    _talking_heads,
    _cosine_attention,
    _spatial_gate,
    _predicted_mixing,
    _token_mixing,
    _class_token,
    _to_map,
    _recurrent,
    _relative_positions,
)
BESIDE_CHANNELS = (_merging, _windows_to_tokens, _unshuffled_convolution)
NESTED = (_residual, _gated, _concatenated, _split)


def _stage(draw: Draw, state: State, depth: int) -> Stage:
    options: list[Callable[..., Stage]] = [*ANY, *(OF_MAPS if state.is_map else OF_TOKENS)]
    if state.channels == 1:  # positions put beside nothing stay tokens
        options = [stage for stage in options if stage not in BESIDE_CHANNELS]
    nested: list[Callable[..., Stage]] = []
    if depth < 2:
        nested = [n for n in NESTED if n is not _split or state.channels > 3]
        nested += [] if state.is_map else [_joined_tokens]
    chosen = draw(st.sampled_from([*options, *nested, *nested]))
    stage = chosen(draw, state, depth) if chosen in nested else chosen(draw, state)
    if prod(stage.state.space) > LARGEST or stage.state.channels > 24:
        return _same_convolution(draw, state)
    return stage


def _head(draw: Draw, state: State) -> tuple[nn.Module | None, int]:
    """What makes the output, and its axis of channels."""
    dim = 1 if state.is_map else 2
    choice = _pick(draw, "none", "mean", "flatten", "first")
    if choice == "none":
        return None, dim
    if choice == "flatten" and state.channels > 1:  # one channel's positions alone are tokens
        layer = nn.Linear(prod(state.space) * state.channels, 5)
        return Code("self.layer(x.flatten(1))", layer=layer), 1
    if state.is_map:
        return Code("x.mean((2, 3))" if choice == "mean" else "x[:, :, 0, -1]"), 1
    return Code("x.mean(1)" if choice == "mean" else "x[:, 0]"), 1


@st.composite
def architectures(draw: Draw) -> Architecture:
    """Models of one to five stages (stages may hold stages) and a head, with random weights."""
    image_size = draw(st.sampled_from([(6, 5), (4, 7), (3, 10), (1, 11)]))
    state = State(IMAGE_CHANNELS, image_size)
    stages: list[Stage] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 3)))
        for _ in range(draw(st.integers(1, 5))):
            stage = _stage(draw, state, 0)
            stages.append(stage)
            state = stage.state
        head, channel_dim = _head(draw, state)
    modules = [stage.module for stage in stages]
    return Architecture(
        model=nn.Sequential(*modules, *([head] if head is not None else [])),
        image_size=image_size,
        channel_dim=channel_dim,
        promise=min(stage.promise for stage in stages),
        prior=any(stage.prior for stage in stages),
    )
