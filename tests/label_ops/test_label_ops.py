"""Every function of the runtime label algebra against a slow replica: loops in float64."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401, for its operators
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from labeltrace import LabelError, label_ops

PRIMES = (2, 3, 5, 7)
SOURCES = 3
LAX = {"atol": 2e-6, "rtol": 0}

settings.register_profile("labeltrace", deadline=None, derandomize=True, database=None)
few = settings(settings.get_profile("labeltrace"), max_examples=60)
many = settings(few, max_examples=400)


# What every function must hold.


# The model's own output has a gradient, a size is a number; the other two wrap label functions.
UNWRAPPED = {"attention_with_labels", "batch_size", "checked_user_function", "label_arithmetic"}


@pytest.mark.parametrize("name", sorted({*label_ops.__all__} - UNWRAPPED))
def test_every_function_is_kept_from_gradients_and_autocast(name: str) -> None:
    """Also where these would not show: a result that is merely moved, or an index."""
    function = getattr(label_ops, name)
    assert inspect.unwrap(function) is not function


def called(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Call a label function as a training step does, and check what holds for all of them."""
    tensors = [value for value in _flattened((args, kwargs)) if isinstance(value, Tensor)]
    before = [tensor.clone() for tensor in tensors]
    state = torch.random.get_rng_state()
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.requires_grad_()  # before both calls: matrix products add up otherwise without
    plain = function(*args, **kwargs)
    with torch.autocast("cpu", torch.bfloat16):
        result = function(*args, **kwargs)
    for tensor, value in zip(tensors, before, strict=True):
        tensor.requires_grad_(False)
        assert torch.equal(tensor.nan_to_num(), value.nan_to_num()), "an input was written to"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert torch.equal(result, plain), "autocast changes labels"
    return result


def _flattened(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flattened(item)
    else:
        yield value


def assert_distributions(labels: Tensor) -> None:
    assert bool((labels >= 0).all()), "negative or NaN"
    torch.testing.assert_close(labels.sum(-1), torch.ones(labels.shape[:-1]), atol=1e-5, rtol=0)


def field(*sizes: int, seed: int = 0) -> Tensor:
    """A label field whose entries all differ: (*sizes, K)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(*sizes, SOURCES, generator=generator) ** 3 + 1e-3
    return noise / noise.sum(-1, keepdim=True)


def indices(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(size) for size in sizes))


def normalized(row: list[float]) -> list[float]:
    """Norm of one row; without a sum it mixes equally."""
    row = [abs(value) for value in row]
    whole = math.fsum(row) if all(map(math.isfinite, row)) else 0.0
    return [value / whole if whole > 0 else 1 / len(row) for value in row]


# Degenerate weights: how rows are made of plain random ones.
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda row: row,
    "zero": lambda row: row * 0,
    "one": lambda row: torch.eye(row.numel())[0].reshape(row.shape),
    "huge": lambda row: row.sign() * 3e38,
    "tiny": lambda row: row * 1e-38,
    "denormal": lambda row: row.sign() * 1.4e-45,
    "huge and tiny": lambda row: torch.where(
        torch.arange(row.numel()) % 2 > 0, row * 1e37, row * 1e-37
    ),
    "infinite": lambda row: torch.where(torch.arange(row.numel()) == 0, -math.inf, row),
    "not a number": lambda row: torch.where(torch.arange(row.numel()) == 0, math.nan, row),
}


def degenerate(weights: Tensor, kinds: Sequence[str]) -> Tensor:
    """Weights (..., columns) whose rows are of the given kinds in turn."""
    flat = weights.reshape(-1, weights.shape[-1])
    rows = [KINDS[kinds[index % len(kinds)]](row) for index, row in enumerate(flat)]
    return torch.stack(rows).reshape(weights.shape)


row_kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4)


def random(*sizes: int, seed: int = 1) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


# Mixing.


@st.composite
def mixings(draw: st.DrawFn) -> dict[str, Any]:
    """A notation with names in any order, sizes, and where parentheses stand."""
    roles = {
        "batch": draw(st.integers(0, 2)),
        "averaged": draw(st.integers(0, 2)),
        "rows": draw(st.integers(0, 2)),
        "columns": draw(st.integers(1, 2)),
        "free": draw(st.integers(0, 1)),
    }
    letters = iter("abcdefghi")
    names = {role: [next(letters) for _ in range(count)] for role, count in roles.items()}
    every = [name for group in names.values() for name in group]
    sizes = dict(zip(every, draw(st.permutations([2, 3, 5, 1, 2, 3, 1, 2, 2])), strict=False))
    weights = draw(
        st.permutations(names["batch"] + names["averaged"] + names["rows"] + names["columns"])
    )
    labels = draw(st.permutations(names["batch"] + names["columns"] + names["free"]))
    result = draw(st.permutations(names["batch"] + names["rows"] + names["free"]))
    axes: list[list[str]] = []
    for name in weights:
        if axes and draw(st.booleans()):
            axes[-1].append(name)
        else:
            axes.append([name])
    text = " ".join(axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes)
    given_sizes = {}
    for axis in axes:
        open_one = draw(st.sampled_from(axis))
        given_sizes |= {name: sizes[name] for name in axis if name != open_one}
    return {
        "notation": f"{text}, {' '.join(labels)} -> {' '.join(result)}",
        "names": names,
        "axes": axes,
        "labels": labels,
        "result": result,
        "sizes": sizes,
        "given": given_sizes,
        "kinds": draw(row_kinds),
    }


def mixed_slowly(weights: Tensor, labels: Tensor, case: dict[str, Any]) -> Tensor:
    """``weights`` has a dimension a name."""
    names, sizes = case["names"], case["sizes"]
    order = [name for axis in case["axes"] for name in axis]
    result = torch.zeros(*(sizes[n] for n in case["result"]), SOURCES, dtype=torch.float64)
    columns = list(indices([sizes[n] for n in names["columns"]]))
    added = [n for n in names["averaged"] if beside_columns(n, case)]
    averaged = [n for n in names["averaged"] if n not in added]
    matrices = list(indices([sizes[n] for n in averaged]))
    repeats = [dict(zip(added, place, strict=True)) for place in indices([sizes[n] for n in added])]
    for place in indices(result.shape[:-1]):
        at = dict(zip(case["result"], place, strict=True))
        for matrix in matrices:
            at |= dict(zip(averaged, matrix, strict=True))
            pairs = [
                dict(zip(names["columns"], column, strict=True)) | repeat
                for column in columns
                for repeat in repeats
            ]
            row = [float(weights[tuple((at | pair)[n] for n in order)]) for pair in pairs]
            for pair, weight in zip(pairs, normalized(row), strict=True):
                at |= pair
                source = labels[tuple(at[n] for n in case["labels"])].double()
                result[place] += weight * source / len(matrices)
    return result


def beside_columns(name: str, case: dict[str, Any]) -> bool:
    """Whether a name shares parentheses with one that is mixed away."""
    columns = set(case["names"]["columns"])
    return any(name in axis and columns & set(axis) for axis in case["axes"])


@few
@given(mixings())
def test_mix(case: dict[str, Any]) -> None:
    check_mix(case, lambda row: degenerate(row, case["kinds"]))


@few
@given(mixings(), st.integers(1, 3), st.integers(2, 4))
def test_mix_by_a_softmax(case: dict[str, Any], sources: int, masked: int) -> None:
    """Every so many rows are masked whole; up to two columns of labels are mixed another way."""

    def rows_of(scores: Tensor) -> Tensor:
        scores[::masked] = -math.inf
        return scores.softmax(-1)

    check_mix(case, rows_of, sources, normalized=True)


def check_mix(
    case: dict[str, Any],
    rows_of: Callable[[Tensor], Tensor],
    sources: int = SOURCES,
    **settings_: bool,
) -> None:
    """Mix with rows made of random ones; the last sources are one source where there are fewer."""
    names, sizes = case["names"], case["sizes"]
    order = [name for axis in case["axes"] for name in axis]
    leading = names["batch"] + names["averaged"] + names["rows"]
    added = [n for n in names["averaged"] if beside_columns(n, case)]
    leading = [n for n in leading if n not in added]
    columns = math.prod(sizes[name] for name in names["columns"] + added)
    rows = rows_of(random(math.prod(sizes[n] for n in leading), columns))
    stored = [*leading, *added, *names["columns"]]
    weights = rows.reshape([sizes[n] for n in stored]).permute([stored.index(n) for n in order])
    labels = field(*(sizes[name] for name in case["labels"]))
    merged = weights.reshape([math.prod(sizes[n] for n in axis) for axis in case["axes"]])
    expected = mixed_slowly(weights, labels, case)
    labels, expected = (
        torch.cat((every[..., : sources - 1], every[..., sources - 1 :].sum(-1, keepdim=True)), -1)
        for every in (labels, expected)
    )
    result = called(label_ops.mix, labels, merged, case["notation"], **case["given"], **settings_)
    torch.testing.assert_close(result.double(), expected, **LAX)
    assert_distributions(result)


@few
@given(
    st.sampled_from(["none", "causal", "boolean", "additive", "per head", "double"]),
    st.sampled_from([None, 0.37, 1.0]),
    st.sampled_from([(3, 5), (5, 3), (7, 7)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_attend(
    mask_kind: str,
    scale: float | None,
    lengths: tuple[int, int],
    grouped: bool,
    folded: bool,
    dtype: torch.dtype,
) -> None:
    (queries, keys), batch, heads, width = lengths, 2, 6, 4
    query = random(batch, heads, queries, width).to(dtype)
    key = random(batch, 2 if grouped else heads, keys, width, seed=2).to(dtype)
    labels = field(batch, keys)
    mask = _mask(mask_kind, heads, queries, keys)
    expected = torch.zeros(batch, queries, SOURCES, dtype=torch.float64)
    for b, h, q in indices([batch, heads, queries]):
        scores = []
        for k in range(keys):
            head = h // 3 if grouped else h
            score = float(query[b, h, q].double() @ key[b, head, k].double())
            score *= 1 / math.sqrt(width) if scale is None else scale
            if mask is not None:
                value = mask.expand(heads, queries, keys)[h, q, k]
                score += 0.0 if value is torch.tensor(True) else _added(value)
            if mask_kind == "causal" and k > q:
                score = -math.inf
            scores.append(score)
        highest = max(scores)
        exps = [0.0 if highest == -math.inf else math.exp(s - highest) for s in scores]
        for k, weight in enumerate(normalized(exps)):
            expected[b, q] += weight * labels[b, k].double() / heads
    settings_: dict[str, Any] = {"mask": mask, "scale": scale, "is_causal": mask_kind == "causal"}
    notation = "b h q k, b k -> b q"
    if folded and not grouped:
        query, key, notation = query.flatten(0, 1), key.flatten(0, 1), "(b h) q k, b k -> b q"
        settings_["h"] = heads
        if mask is not None:
            settings_["mask"] = mask.expand(batch, heads, queries, keys).flatten(0, 1)
    result = called(
        label_ops.attend, labels, query, key, notation, grouped_heads=grouped, **settings_
    )
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    assert_distributions(result)


def test_attend_keeps_grouped_heads_apart() -> None:
    """Six heads that share the keys of two: each as it is alone."""
    query, key, labels = random(2, 6, 5, 4), random(2, 2, 7, 4, seed=2), field(2, 7)
    kept = called(label_ops.attend, labels, query, key, "b h q k, b k -> b h q", grouped_heads=True)
    for head in range(6):
        alone = query[:, [head]], key[:, [head // 3]]
        expected = label_ops.attend(labels, *alone, "b h q k, b k -> b q")
        torch.testing.assert_close(kept[:, head], expected)


def _mask(kind: str, heads: int, queries: int, keys: int) -> Tensor | None:
    if kind == "boolean":
        mask = random(queries, keys, seed=3) > 0
        mask[1] = False  # masked whole
        return mask
    if kind in ("additive", "double"):
        mask = random(queries, keys, seed=3)
        mask[0, 1] = -math.inf
        mask[1] = -math.inf
        return mask.double() if kind == "double" else mask
    return random(heads, queries, keys, seed=3) if kind == "per head" else None


def _added(value: Tensor) -> float:
    if value.dtype == torch.bool:
        return 0.0 if bool(value) else -math.inf
    return float(value)


@pytest.mark.parametrize("magnitude", [1e38, 1e25, 1e-30, math.inf, math.nan])
def test_attend_gives_distributions_whatever_the_scores(magnitude: float) -> None:
    query, key = random(2, 3, 5, 4) * magnitude, random(2, 3, 7, 4)
    result = called(label_ops.attend, field(2, 7), query, key, "b h q k, b k -> b q")
    assert_distributions(result)


# Windows.


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a window that slides over 1 to 3 dimensions and always sees some position."""
    count = draw(st.integers(1, 3))
    sizes = draw(st.permutations([7, 5, 4]))[:count]
    kernel = [draw(st.integers(1, 3)) for _ in sizes]
    dilation = [draw(st.sampled_from([1, 1, 2])) for _ in sizes]
    padding = [
        tuple(draw(st.integers(0, (k - 1) * d)) for _ in range(2))
        for k, d in zip(kernel, dilation, strict=True)
    ]
    padding = [
        pair if (k - 1) * d < size else (0, 0)
        for pair, k, d, size in zip(padding, kernel, dilation, sizes, strict=True)
    ]
    padding = [(min(a, d), min(b, d)) for (a, b), d in zip(padding, dilation, strict=True)]
    return {
        "sizes": sizes,
        "kernel": kernel,
        "stride": [draw(st.integers(1, 3)) for _ in sizes],
        "dilation": dilation,
        "padding": padding,
    }


@st.composite
def far_windows(draw: st.DrawFn) -> dict[str, Any]:
    """Windows of which some may lie outside, or have taps on both sides of the image alone."""
    sizes = draw(st.permutations([3, 4]))[: draw(st.integers(1, 2))]
    padding = [draw(st.integers(0, 7)) for _ in range(2)]
    return {
        "sizes": sizes,
        "kernel": [draw(st.integers(1, 3)) for _ in sizes],
        "stride": [draw(st.integers(1, 3)) for _ in sizes],
        "dilation": [draw(st.integers(1, 7)) for _ in sizes],
        "padding": [draw(st.sampled_from([tuple(padding), (padding[0],) * 2])) for _ in sizes],
    }


def slid(labels: Tensor, taps: Tensor, case: dict[str, Any], output: Sequence[int]) -> Tensor:
    """Every output position by itself: the weighted mean of what its window sees, or of all."""
    sizes = case["sizes"]
    result = torch.zeros(len(labels), *output, SOURCES, dtype=torch.float64)
    for place in indices(output):
        seen, row = [], []
        for tap in indices(case["kernel"]):
            at = tuple(
                p * s - before + t * d
                for p, s, (before, _), t, d in zip(
                    place, case["stride"], case["padding"], tap, case["dilation"], strict=True
                )
            )
            if all(0 <= a < size for a, size in zip(at, sizes, strict=True)):
                seen.append(at)
                row.append(float(taps[tap]))
        if not seen:
            seen = list(indices(sizes))
            row = [1.0] * len(seen)
        for at, weight in zip(seen, normalized(row), strict=True):
            result[(slice(None), *place)] += weight * labels[(slice(None), *at)].double()
    return result


def output_sizes(case: dict[str, Any]) -> list[int]:
    extents = [d * (k - 1) + 1 for d, k in zip(case["dilation"], case["kernel"], strict=True)]
    return [
        (size + before + after - extent) // stride + 1
        for size, (before, after), extent, stride in zip(
            case["sizes"], case["padding"], extents, case["stride"], strict=True
        )
    ]


def kernel_of_contract(weights: Tensor) -> Tensor:
    """``k[t] = mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)`` in float64, by loops."""
    taps = list(indices(weights.shape[2:]))
    kernel = torch.zeros(weights.shape[2:], dtype=torch.float64)
    for channel in weights.double():
        row = [math.fsum(abs(float(part[tap])) for part in channel) for tap in taps]
        for tap, share in zip(taps, normalized(row), strict=True):
            kernel[tap] += share / len(weights)
    return kernel


@few
@given(windows(), st.integers(1, 3), st.integers(1, 2), row_kinds)
def test_convolve(case: dict[str, Any], out: int, inside: int, kinds: list[str]) -> None:
    # Taps below 1e-30 of the others count as zero: "huge and tiny" differs where they are alone.
    left_out = ("infinite", "not a number", "huge and tiny")
    kinds = [kind for kind in kinds if kind not in left_out] or ["plain"]
    flat = random(out, inside * math.prod(case["kernel"]))
    weights = degenerate(flat, kinds).reshape(out, inside, *case["kernel"])
    sizes = output_sizes(case)
    if min(sizes) < 1:
        return
    labels = field(5, *case["sizes"])
    settings_ = (case["stride"], case["padding"], case["dilation"])
    result = called(label_ops.convolve, labels, called(label_ops.kernel, weights), *settings_)
    expected = slid(labels, kernel_of_contract(weights), case, sizes)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    assert_distributions(result)


@many
@given(far_windows())
def test_windows_outside_the_image_take_the_mean(case: dict[str, Any]) -> None:
    sizes = output_sizes(case)
    if min(sizes) < 1:
        return
    labels, taps = field(2, *case["sizes"]), random(*case["kernel"]).relu()  # some are nought
    settings_ = (case["stride"], case["padding"], case["dilation"])
    result = called(label_ops.convolve, labels, taps[None, None], *settings_)
    expected = slid(labels, taps, case, sizes)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (2, 0)])
def test_convolve_falls_back_where_only_zero_taps_are_inside(
    place: tuple[int, int], dtype: torch.dtype
) -> None:
    weights = torch.zeros(1, 2, 3, 3, dtype=dtype)
    weights[:, :, *place] = 1
    case = {
        "sizes": [13, 11],
        "kernel": [3, 3],
        "stride": [1, 1],
        "dilation": [1, 1],
        "padding": [(2, 2), (2, 2)],
    }
    labels = field(2, 13, 11)
    kernel = called(label_ops.kernel, weights)
    result = called(label_ops.convolve, labels, kernel, [1, 1], [(2, 2), (2, 2)], [1, 1])
    expected = slid(labels, weights[0, 0], case, output_sizes(case))
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    assert_distributions(result)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_convolve_gives_distributions_whatever_the_kernel(kind: str) -> None:
    weights = degenerate(random(3, 18), [kind]).reshape(3, 2, 3, 3)
    kernel = called(label_ops.kernel, weights)
    result = called(label_ops.convolve, field(2, 7, 5), kernel, [1, 2], [(1, 1), (0, 1)], [1, 1])
    assert_distributions(result)


BEYOND = {"sizes": [5], "kernel": [2], "stride": [7], "dilation": [2], "padding": [(1, 1)]}
"""With ``ceil_mode``, a second window would start behind the image."""


@few
@given(windows(), st.booleans())
@example(BEYOND, True)
def test_pool(case: dict[str, Any], ceil_mode: bool) -> None:
    case["padding"] = [
        (min(before, k // 2),) * 2
        for (before, _), k in zip(case["padding"], case["kernel"], strict=True)
    ]
    maximum = (
        torch.nn.functional.max_pool1d,
        torch.nn.functional.max_pool2d,
        torch.nn.functional.max_pool3d,
    )[len(case["sizes"]) - 1]
    single = [before for before, _ in case["padding"]]
    settings_ = (case["kernel"], case["stride"], single, case["dilation"])
    if min(output_sizes(case)) < 1:
        return
    shape = maximum(torch.zeros(1, 1, *case["sizes"]), *settings_, ceil_mode=ceil_mode).shape[2:]
    labels = field(5, *case["sizes"])
    result = called(label_ops.pool, labels, *settings_, ceil_mode=ceil_mode)
    expected = slid(labels, torch.ones(case["kernel"]), case, shape)
    torch.testing.assert_close(result.double(), expected, **LAX)
    assert_distributions(result)


@few
@given(st.permutations([7, 5, 4]), st.integers(1, 3), st.data())
def test_adaptive_pool(sizes: list[int], count: int, data: st.DataObject) -> None:
    sizes = sizes[:count]
    output = [data.draw(st.integers(1, size + 2)) for size in sizes]
    labels = field(5, *sizes)
    result = called(label_ops.adaptive_pool, labels, output)
    for place in indices(output):
        box = tuple(
            slice(p * size // o, -(-(p + 1) * size // o))
            for p, size, o in zip(place, sizes, output, strict=True)
        )
        expected = labels[(slice(None), *box)].double().flatten(1, -2).mean(1)
        torch.testing.assert_close(result[(slice(None), *place)].double(), expected, **LAX)


@st.composite
def transposed_windows(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a transposed convolution over 1 to 3 dimensions."""
    sizes = draw(st.permutations([4, 3, 2]))[: draw(st.integers(1, 3))]
    kernel = [draw(st.integers(1, 3)) for _ in sizes]
    stride = [draw(st.integers(1, 3)) for _ in sizes]
    return {
        "sizes": sizes,
        "kernel": kernel,
        "stride": stride,
        "padding": [draw(st.integers(0, k - 1)) for k in kernel],
        "output_padding": [draw(st.integers(0, s - 1)) for s in stride],
        "dilation": [draw(st.sampled_from([1, 1, 2])) for _ in sizes],
    }


@few
@given(transposed_windows(), st.integers(1, 3), st.integers(1, 2), row_kinds)
def test_convolve_transposed(case: dict[str, Any], inside: int, out: int, kinds: list[str]) -> None:
    """Every output position by itself: the inputs whose kernel, laid over them, covers it."""
    kinds = [kind for kind in kinds if kind not in ("infinite", "not a number")] or ["plain"]
    flat = degenerate(random(out, inside * math.prod(case["kernel"])), kinds)
    by_output = flat.reshape(out, inside, *case["kernel"])
    kernel, labels = kernel_of_contract(by_output), field(5, *case["sizes"])
    names = ("stride", "padding", "output_padding", "dilation")
    output = [
        (size - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for size, k, s, p, extra, d in zip(
            case["sizes"], case["kernel"], *(case[name] for name in names), strict=True
        )
    ]
    if min(output) < 1:
        return
    result = called(
        label_ops.convolve_transposed,
        labels,
        by_output.transpose(0, 1).contiguous(),
        *(case[name] for name in names),
    )
    assert list(result.shape) == [5, *output, SOURCES]
    for place in indices(output):
        row = []
        sources = list(indices(case["sizes"]))
        for source in sources:
            taps = [
                (to + padding - at * stride) / dilation
                for to, at, stride, padding, dilation in zip(
                    place, source, case["stride"], case["padding"], case["dilation"], strict=True
                )
            ]
            covered = all(
                tap in range(size) for tap, size in zip(taps, case["kernel"], strict=True)
            )
            row.append(float(kernel[tuple(map(int, taps))]) if covered else math.nan)
        seen = [weight for weight in row if not math.isnan(weight)]
        shares = iter(normalized(seen) if seen else normalized([1.0] * len(row)))
        expected = torch.zeros(5, SOURCES, dtype=torch.float64)
        for source, weight in zip(sources, row, strict=True):
            if not seen or not math.isnan(weight):
                expected += next(shares) * labels[(slice(None), *source)].double()
        found = result[(slice(None), *place)].double()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert_distributions(result)


@st.composite
def overlapping_windows(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of windows over two axes, at least one of them inside the padded image."""
    case: dict[str, Any] = {"sizes": draw(st.permutations([7, 5]))}
    case["kernel"] = [draw(st.integers(1, 3)) for _ in range(2)]
    case["stride"] = [draw(st.integers(1, 4)) for _ in range(2)]
    case["padding"] = [draw(st.integers(0, 2)) for _ in range(2)]
    case["dilation"] = [draw(st.integers(1, 2)) for _ in range(2)]
    return case


def seen_by_windows(case: dict[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """Which pixel each place of each window sees, counted from one; 0 for the padding.

    (windows, places in a window) by torch's own `unfold` of the pixels' numbers.
    """
    rows, columns = case["sizes"]
    numbers = torch.arange(1, rows * columns + 1).reshape(1, 1, rows, columns).double()
    names = ("kernel", "dilation", "padding", "stride")
    seen = torch.nn.functional.unfold(numbers, *(case[name] for name in names))
    counts = tuple(
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(case["sizes"], *(case[name] for name in names), strict=True)
    )
    return seen[0].long().T, counts


@few
@given(overlapping_windows(), st.booleans())
def test_unfold(case: dict[str, Any], between: bool) -> None:
    """By dimension, with another one between the two or not; the batch is the second one then."""
    rows, columns = case["sizes"]
    labels, prior = field(3, rows, columns), field(3, seed=7)
    seen, counts = seen_by_windows(case)
    names = ("kernel", "stride", "padding", "dilation")
    given_ = prior if any(case["padding"]) else None
    order = (1, 0, 2) if between else (0, 1, 2)
    dims = [order.index(1), order.index(2)]
    moved = labels.permute(*order, 3)
    settings_ = [case[name] for name in names]
    result = called(label_ops.unfold, moved, given_, dims, *settings_, batch_dim=order.index(0))
    shape = [3] * 1 + [counts[0], case["kernel"][0], counts[1], case["kernel"][1]]
    back = result.permute(2, 0, 1, 3, 4, 5) if between else result
    assert list(back.shape) == [*shape, SOURCES]
    flat = back.permute(0, 1, 3, 2, 4, 5).reshape(3, *seen.shape, SOURCES)
    pixels = torch.cat([prior[:, None], labels.flatten(1, 2)], 1)
    assert torch.equal(flat, pixels[:, seen])


@few
@given(overlapping_windows(), st.sampled_from(["both", "windows", "places"]))
def test_fold(case: dict[str, Any], varies: str) -> None:
    """Every pixel by itself: the mean of the windows' places that see it."""
    seen, _ = seen_by_windows(case)
    windows_, places = seen.shape
    labels = field(5, places if varies != "windows" else 1, windows_ if varies != "places" else 1)
    names = ("kernel", "stride", "padding", "dilation")
    result = called(label_ops.fold, labels, case["sizes"], *(case[name] for name in names))
    assert list(result.shape) == [5, *case["sizes"], SOURCES]
    every = labels.double().expand(5, places, windows_, SOURCES).transpose(1, 2)
    for number, (row, column) in enumerate(indices(case["sizes"]), 1):
        landing = every[:, seen == number]
        if not landing.shape[1]:
            landing = every.flatten(1, 2)
        found = result[:, row, column].double()
        torch.testing.assert_close(found, landing.mean(1), **LAX)
    assert_distributions(result)


# Recurrence.


@few
@given(
    st.permutations([2, 3, 5]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2),
)
def test_recur_and_final_states(
    sizes: list[int], dim: int, layers: int, both: bool, averaged: int
) -> None:
    """Step after step, layer after layer, with what a layer has read so far in a list."""
    labels = field(*sizes, *(2, 7)[:averaged])
    settings_: dict[str, Any] = {"bidirectional": both, "feature_dims": averaged}
    outputs = called(label_ops.recur, labels, dim, layers, **settings_)
    states = called(label_ops.final_states, labels, dim, layers, **settings_)
    steps = list(labels.double().unbind(dim))
    steps = [step.reshape(*step.shape[:2], -1, SOURCES).mean(2) for step in steps]
    last: list[Tensor] = []
    for _ in range(layers):
        read_by: list[list[Tensor]] = []
        for backwards in (False, True)[: 1 + both]:
            order = steps[::-1] if backwards else steps
            read: list[Tensor] = []
            means = []
            for step in order:
                read.append(step)
                means.append(sum(read) / len(read))
            last.append(means[-1])
            read_by.append(means[::-1] if backwards else means)
        steps = [sum(pair) / len(pair) for pair in zip(*read_by, strict=True)]
    torch.testing.assert_close(outputs.double(), torch.stack(steps, dim), **LAX)
    torch.testing.assert_close(states.double(), torch.stack(last), **LAX)
    assert_distributions(outputs)
    assert_distributions(states)


# Resampling: the weights of one axis, as the operators' documents define them.


def interpolated(mode: str, at: float, size: int) -> dict[int, float]:
    """The weights with which a point between positions mixes them; beyond the ends, the ends."""
    base = math.floor(at)
    reach = {"linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]
    weights: dict[int, float] = {}
    for offset in reach:
        index = min(max(base + offset, 0), size - 1)
        distance = abs(at - base - offset)
        value = max(1 - distance, 0) if mode == "linear" else cubic(distance, -0.75)
        weights[index] = weights.get(index, 0) + value
    return weights


def cubic(x: float, a: float) -> float:
    """Keys' cubic convolution."""
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def antialiased(mode: str, center: float, scale: float, size: int) -> dict[int, float]:
    """The filter is as wide as the step, and what lies outside the axis is cut off."""
    wide = max(scale, 1.0)
    support = (1.0 if mode == "linear" else 2.0) * wide
    first = max(int(center - support + 0.5), 0)
    last = min(int(center + support + 0.5), size)
    values = {}
    for index in range(first, last):
        distance = abs(index - center + 0.5) / wide
        values[index] = max(1 - distance, 0) if mode == "linear" else cubic(distance, -0.5)
    whole = math.fsum(values.values())
    return {index: value / whole for index, value in values.items()}


def resampling_row(case: dict[str, Any], axis: int, place: int) -> dict[int, float]:
    size, target, scale = (case[name][axis] for name in ("sizes", "targets", "scales"))
    step = size / target if scale is None else 1 / scale
    mode = case["mode"]
    if mode == "nearest":
        return {min(math.floor(place * step), size - 1): 1.0}
    if mode == "nearest-exact":
        return {min(math.floor((place + 0.5) * step), size - 1): 1.0}
    if case["align_corners"]:
        step = (size - 1) / (target - 1) if target > 1 else 0.0
        if case["antialias"]:
            return antialiased(mode, step * (place + 0.5), step, size)
        return interpolated(mode, step * place, size)
    if case["antialias"]:
        return antialiased(mode, step * (place + 0.5), step, size)
    at = step * (place + 0.5) - 0.5
    return interpolated(mode, max(at, 0.0) if mode == "linear" else at, size)


@st.composite
def resamplings(draw: st.DrawFn, antialias: bool) -> dict[str, Any]:
    count = draw(st.integers(1, 2))
    sizes = draw(st.permutations([5, 3, 7]))[:count]
    modes = ["linear", "cubic"] if antialias else ["nearest", "nearest-exact", "linear", "cubic"]
    mode = draw(st.sampled_from(modes))
    scales: list[float | None] = [None] * count
    targets = [draw(st.sampled_from([1, 2, 4, 8, 11, 13])) for _ in sizes]
    if draw(st.booleans()):  # factors that binary fractions hold exactly
        scales = [draw(st.sampled_from([0.5, 1.5, 2.0, 2.25])) for _ in sizes]
        targets = [math.floor(size * factor) for size, factor in zip(sizes, scales, strict=True)]
    return {
        "sizes": sizes,
        "targets": targets,
        "scales": scales,
        "mode": mode,
        "align_corners": mode in ("linear", "cubic") and draw(st.booleans()),
        "antialias": antialias,
    }


@few
@given(resamplings(antialias=False))
def test_resample(case: dict[str, Any]) -> None:
    check_resample(case)


@few
@given(resamplings(antialias=True))
def test_resample_with_antialias(case: dict[str, Any]) -> None:
    check_resample(case)


def check_resample(case: dict[str, Any]) -> None:
    labels = field(2, *case["sizes"])
    result = called(
        label_ops.resample,
        labels,
        case["targets"],
        case["mode"],
        case["scales"],
        case["align_corners"],
        case["antialias"],
    )
    assert list(result.shape) == [2, *case["targets"], SOURCES]
    for place in indices(case["targets"]):
        rows = [resampling_row(case, axis, at) for axis, at in enumerate(place)]
        whole = math.prod(math.fsum(map(abs, row.values())) for row in rows)
        expected = torch.zeros(2, SOURCES, dtype=torch.float64)
        for cells in itertools.product(*(row.items() for row in rows)):
            weight = math.prod(abs(value) for _, value in cells) / whole
            at = tuple(index for index, _ in cells)
            expected += weight * labels[(slice(None), *at)].double()
        found = result[(slice(None), *place)].double()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert_distributions(result)


# Moving positions.


@few
@given(
    st.permutations([2, 3, 5]),
    st.integers(0, 2),
    st.sampled_from(["prior", "reflect", "replicate", "circular"]),
    st.data(),
)
def test_pad(sizes: list[int], batch_dim: int, mode: str, data: st.DataObject) -> None:
    labels = field(*sizes)
    prior = field(sizes[batch_dim], seed=7)
    widths = []
    for dim, size in enumerate(sizes):
        most = size - 1 if mode in ("reflect", "circular") else 3
        # torch goes round what a negative width leaves: test_pad_copies_what_torch_copies
        least = -1 if size > 2 and mode != "circular" else 0
        still = dim == batch_dim
        widths.append(
            (0, 0) if still else tuple(data.draw(st.integers(least, most)) for _ in range(2))
        )
    result = called(label_ops.pad, labels, prior, widths, mode, batch_dim)
    assert list(result.shape[:-1]) == [a + s + b for s, (a, b) in zip(sizes, widths, strict=True)]
    for place in indices(result.shape[:-1]):
        at = [p - before for p, (before, _) in zip(place, widths, strict=True)]
        outside = any(not 0 <= a < size for a, size in zip(at, sizes, strict=True))
        if outside and mode == "prior":
            expected = prior[place[batch_dim]]
        else:
            expected = labels[tuple(_copied(a, s, mode) for a, s in zip(at, sizes, strict=True))]
        assert torch.equal(result[place], expected)


def _copied(at: int, size: int, mode: str) -> int:
    """Which index an index outside copies."""
    while not 0 <= at < size:
        if mode == "circular":
            at += size if at < 0 else -size
        elif mode == "replicate":
            at += 1 if at < 0 else -1
        else:
            at = -at if at < 0 else 2 * (size - 1) - at
    return at


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("width", [(2, 1), (0, 3), (3, 0), (-1, 2)])
def test_pad_copies_what_torch_copies(mode: str, width: tuple[int, int]) -> None:
    labels = field(2, 5)
    result = called(label_ops.pad, labels, None, [(0, 0), width], mode)
    expected = torch.nn.functional.pad(labels.mT, width, mode=mode).mT
    assert torch.equal(result, expected)


@few
@given(
    st.integers(0, 2),
    st.sampled_from([0, 2]),
    st.lists(st.sampled_from(["prior", "whole", "repeated"]), min_size=1, max_size=3),
)
def test_join(dim: int, batch_dim: int, kinds: list[str]) -> None:
    sizes = [3, 5, 2]
    if dim == batch_dim:
        kinds = [kind for kind in kinds if kind != "prior"]
    prior = field(sizes[batch_dim], seed=9)
    pieces, widths, expected = [], [], []
    for index, kind in enumerate([*kinds, "whole"]):
        width = (2, 4, 1, 3)[index]
        shape = [*sizes[:dim], 1 if kind == "repeated" else width, *sizes[dim + 1 :]]
        piece = prior if kind == "prior" else field(*shape, seed=index)
        pieces.append(piece)
        widths.append(width)
        for at in range(width):
            if kind == "prior":
                spread = prior if batch_dim == 2 else prior[:, None]
                target = [size for axis, size in enumerate(sizes) if axis != dim]
                where = batch_dim - (dim < batch_dim)
                spread = prior if where == 1 else prior[:, None]
                expected.append(spread.expand(*target, SOURCES))
            else:
                expected.append(piece.select(dim, 0 if kind == "repeated" else at))
    result = called(label_ops.join, pieces, widths, dim, batch_dim)
    assert torch.equal(result, torch.stack(expected, dim))


@few
@given(st.permutations([2, 3, 5]), st.data())
def test_relayout(sizes: list[int], data: st.DataObject) -> None:
    """Split, reorder and merge; one size each is left to be inferred."""
    splits = [data.draw(st.sampled_from([1, 2])) for _ in sizes]
    split = [part for size, count in zip(sizes, splits, strict=True) for part in (count, size)]
    labels = field(*(size * count for size, count in zip(sizes, splits, strict=True)))
    order = data.draw(st.permutations(range(6)))
    cut = data.draw(st.integers(0, 6))
    groups = [list(order[:cut]), list(order[cut:])]
    merge = [math.prod(split[slot] for slot in group) for group in groups]
    open_split, open_merge = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 1))
    result = called(
        label_ops.relayout,
        labels,
        split=[-1 if slot == open_split else size for slot, size in enumerate(split)],
        order=list(order),
        merge=[-1 if slot == open_merge else size for slot, size in enumerate(merge)],
    )
    assert list(result.shape) == [*merge, SOURCES]
    for place in indices(split):
        origin = [place[2 * dim] * size + place[2 * dim + 1] for dim, size in enumerate(sizes)]
        target = []
        for group in groups:
            at = 0
            for slot in group:
                at = at * split[slot] + place[slot]
            target.append(at)
        assert torch.equal(result[tuple(target)], labels[tuple(origin)])


@few
@given(st.tuples(*[st.integers(1, 3)] * 3), st.booleans())
def test_repeat(counts: tuple[int, int, int], each: bool) -> None:
    sizes = (2, 3, 5)
    labels = field(*sizes)
    result = called(label_ops.repeat, labels, counts, each)
    assert list(result.shape[:-1]) == [s * c for s, c in zip(sizes, counts, strict=True)]
    for place in indices(result.shape[:-1]):
        origin = tuple(
            at // count if each else at % size
            for at, size, count in zip(place, sizes, counts, strict=True)
        )
        assert torch.equal(result[place], labels[origin])


@few
@given(st.integers(0, 2), st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3), st.data())
def test_roll_flip_cut_select_and_take(
    dim: int, shift: int, second: int, step: int, data: st.DataObject
) -> None:
    sizes = (7, 3, 5)
    labels, size, other = field(*sizes), sizes[dim], (dim + 1) % 3
    rolled = called(label_ops.roll, labels, [shift, second], [dim, other])
    flipped = called(label_ops.flip, labels, [other, dim])
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    cut = called(label_ops.cut, labels, dim, start, end, step=step)
    index = torch.tensor(data.draw(st.lists(st.integers(-size, size - 1), min_size=4, max_size=4)))
    taken = called(label_ops.take, labels, dim, index.reshape(2, 2))
    mask = torch.arange(size) % 2 == 0
    masked = called(label_ops.take, labels, dim, mask)
    one = called(label_ops.select, labels, dim, start)
    assert torch.equal(one, torch.stack(labels.unbind(dim))[start])
    assert list(cut.select(dim, 0).shape) == list(one.shape)
    assert cut.shape[dim] == len(range(start, end, step))
    for at in range(size):
        row = labels.select(dim, at)
        for place in range(sizes[other]):
            to = ((at + shift) % size, (place + second) % sizes[other])
            line = row.select(other - (dim < other), place)
            assert torch.equal(_line(rolled, (dim, other), to), line)
            to = (size - 1 - at, sizes[other] - 1 - place)
            assert torch.equal(_line(flipped, (dim, other), to), line)
    for place, at in enumerate(range(start, end, step)):
        assert torch.equal(cut.select(dim, place), labels.select(dim, at))
    for place, at in enumerate(index.tolist()):
        assert torch.equal(taken.select(dim, place), labels.select(dim, at % size))
    for place, at in enumerate(range(0, size, 2)):
        assert torch.equal(masked.select(dim, place), labels.select(dim, at))


def _line(labels: Tensor, dims: tuple[int, int], at: tuple[int, int]) -> Tensor:
    place: list[Any] = [slice(None)] * labels.dim()
    for dim, index in zip(dims, at, strict=True):
        place[dim] = index
    return labels[tuple(place)]


# Averages and ends.


@few
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 1, 3, 7]), st.tuples(*[st.booleans()] * 3)),
        min_size=1,
        max_size=4,
    ).filter(lambda pieces: any(share for share, _ in pieces))
)
@example([(0, (False,) * 3), (0, (True,) * 3), (3, (False,) * 3)])
def test_average(pieces: list[tuple[int, tuple[bool, ...]]]) -> None:
    sizes = (2, 3, 5)
    shares = [share for share, _ in pieces]
    fields = [
        field(
            *(1 if broadcast else size for broadcast, size in zip(which, sizes, strict=True)),
            seed=i,
        )
        for i, (_, which) in enumerate(pieces)
    ]
    equal = len(set(shares)) == 1
    result = called(label_ops.average, fields, **({} if equal else {"shares": shares}))
    expected = sum(
        piece.double() * share / sum(shares) for piece, share in zip(fields, shares, strict=True)
    )
    torch.testing.assert_close(result.double(), expected, **LAX)
    assert_distributions(result)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_aggregate(count: int) -> None:
    labels = field(2, 3, 5, 7)
    result = called(label_ops.aggregate, labels, count)
    kept = labels.shape[: 4 - count]
    for place in indices(kept):
        rows = labels[place].reshape(-1, SOURCES).double()
        torch.testing.assert_close(result[place].double(), sum(rows) / len(rows), **LAX)
    assert result.shape == (*kept, SOURCES)


@few
@given(
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_read_image_and_prior(count: int, whole: bool, dtype: torch.dtype) -> None:
    sizes = (3, 5, 7)[:count]
    image = field(2, *(sizes if whole else [1] * count)).movedim(-1, 1).to(dtype)
    read = called(label_ops.read_image, image, sizes)
    mean = called(label_ops.prior_of, read)
    assert read.shape == (2, *sizes, SOURCES)
    for batch, source in indices((2, SOURCES)):
        values = []
        for place in indices(sizes):
            at = place if whole else (0,) * count
            assert read[(batch, *place, source)] == image[(batch, source, *at)].float()
            values.append(float(read[(batch, *place, source)]))
        torch.testing.assert_close(
            float(mean[batch, source]), math.fsum(values) / len(values), atol=2e-6, rtol=0
        )


@few
@given(st.integers(0, 3), st.tuples(*[st.booleans()] * 3))
def test_write_output(dim: int, repeated: tuple[bool, ...]) -> None:
    sizes = (2, 3, 5)
    labels = field(*(1 if one else size for one, size in zip(repeated, sizes, strict=True)))
    asked = [size if one else -1 for one, size in zip(repeated, sizes, strict=True)]
    result = called(label_ops.write_output, labels, asked, dim)
    assert result.is_contiguous()
    assert result.shape == (*sizes[:dim], SOURCES, *sizes[dim:])
    for place in indices(sizes):
        origin = tuple(0 if one else p for one, p in zip(repeated, place, strict=True))
        assert torch.equal(result.movedim(dim, -1)[place], labels[origin])


# Elements that are picked and written over.


def test_positions_without_a_write_need_to_know_their_image() -> None:
    labels, prior = torch.eye(2).expand(3, 2, 2), torch.full((3, 2), 0.5)
    settings = {
        "kept": [0],
        "sizes": [[5], [3, 2]],
        "shapes": [[5], [6]],
        "result": [5],
    }
    place = ["slice", [0, 1, 5]]
    with pytest.raises(LabelError, match="nothing was written to carry the prior"):
        label_ops.overwrite(
            [None, labels[:2]],
            prior,
            [place],
            **{**settings, "sizes": [[5], [2, 2]], "shapes": [[5], [4]]},
        )
    whole = [["slice", [0, 0, 5]]]
    found = label_ops.overwrite(
        [None, labels.flatten(0, 1)[:5]],
        prior,
        whole,
        **{**settings, "sizes": [[5], [5]], "shapes": [[5], [5]]},
    )
    assert torch.equal(found, labels.flatten(0, 1)[:5])


@pytest.mark.parametrize("operator", ["roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"])
def test_a_box_that_sees_nothing_carries_the_prior(operator: str) -> None:
    labels = torch.rand(2, 5, 7, 3).softmax(-1)
    prior = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]])
    boxes = torch.tensor([[1.0, 50.0, 50.0, 60.0, 60.0], [0.0, 1.0, 1.0, 4.0, 4.0]])
    found = label_ops.sample_boxes(labels, prior, boxes, operator, [2, 2], 1.0)
    assert torch.equal(found[0], prior[1].expand(2, 2, 3))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 2, 2))
    mean = label_ops.sample_boxes(labels, None, boxes, operator, [2, 2], 1.0)
    torch.testing.assert_close(mean[0, 0, 0], labels[1].mean((0, 1)))


def test_many_labels_are_looked_up_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, index = torch.rand(2, 5, 1, 3).softmax(-1), torch.randint(0, 5, (2, 4, 7))
    whole = label_ops.reindex(labels, "gather", [1, index], [0, 1], sizes=[-1, -1, 7])
    monkeypatch.setattr("labeltrace.label_ops.elements.LABELS_AT_ONCE", 48)
    blocks = label_ops.reindex(labels, "gather", [1, index], [0, 1], sizes=[-1, -1, 7])
    torch.testing.assert_close(blocks, whole)
    expected = labels[:, :, 0].gather(1, index.flatten(1)[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(whole, expected.unflatten(1, (4, 7)).mean(2))
