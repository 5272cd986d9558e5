"""Convolutions: the shares of their taps (contract, point 4), carried to each position by loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import prod

import torch
from torch import Tensor

from tests.rules.cases.case import Refusal, RuleCase, Truth, values
from tests.rules.cases.expected_labels import (
    alike,
    averages,
    looped,
    mixes,
    normalized,
    results,
    stays,
)

Shape = tuple[int, ...]
SHAPES: dict[int, Shape] = {1: (2, 3, 13), 2: (2, 3, 5, 7), 3: (2, 3, 2, 5, 4)}


def shares(kernels: Tensor, inputs: int) -> Tensor:
    """``mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)``: (*kernel)."""
    total = torch.zeros(kernels.shape[2:], dtype=torch.float64)
    for kernel in kernels.double():
        magnitudes = sum(kernel[i].abs() for i in range(inputs))
        assert isinstance(magnitudes, Tensor)
        whole = magnitudes.sum()
        total += magnitudes / whole if whole > 0 else torch.ones_like(total) / total.numel()
    return total / len(kernels)


def carried(
    case: RuleCase, taps: Tensor, cell_of: Callable[[Sequence[int], Sequence[int]], Sequence[float]]
) -> Tensor:
    """The provenance of an output (B, C, *positions) of images (B, C, *space).

    ``cell_of(position, tap)`` is the place at which a tap stands, inside the image or not.
    """
    space = case.shape[2:]
    (output,) = results(case)
    rows = []
    for position in product(*map(range, output.shape[2:])):
        row, inside = torch.zeros(*space).double(), torch.zeros(*space).double()
        for tap in product(*map(range, taps.shape)):
            cell = cell_of(position, tap)
            if all(c == int(c) and 0 <= c < size for c, size in zip(cell, space, strict=True)):
                row[tuple(map(int, cell))] += taps[tap]
                inside[tuple(map(int, cell))] = 1
        seen = inside if inside.sum() > 0 else torch.ones_like(inside)
        rows.append(normalized((row if row.sum() > 0 else seen).flatten()))
    matrix = torch.stack(rows).reshape(1, *output.shape[2:], prod(space))
    found = torch.zeros(*output.shape, case.shape[0], prod(space), dtype=torch.float64)
    for image in range(case.shape[0]):
        found[image, ..., image, :] = matrix
    return found.flatten(-2)


def spread(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def sliding(settings: dict[str, object]) -> Truth:
    """A convolution by the shares of its taps; equal ones where no two windows overlap."""

    def rows(case: RuleCase) -> Tensor:
        weight = case.parts["weight"]
        kernel = weight.shape[2:]
        count = len(kernel)
        stride, dilation = (spread(settings.get(n, 1), count) for n in ("stride", "dilation"))
        padding = settings.get("padding", 0)
        if padding == "same":
            padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
        before = spread(0 if padding == "valid" else padding, count)
        taps = shares(weight, weight.shape[1])
        if stride == tuple(kernel) and not any(before) and max(dilation) == 1:
            taps = torch.ones_like(taps)

        def cell_of(position: Sequence[int], tap: Sequence[int]) -> list[float]:
            along = zip(position, tap, stride, before, dilation, strict=True)
            return [p * s - b + d * t for p, t, s, b, d in along]

        return carried(case, taps, cell_of)

    return looped(rows)


def spreading(settings: dict[str, object]) -> Truth:
    """A transposed convolution: each position by the taps that reach it."""

    def rows(case: RuleCase) -> Tensor:
        weight = case.parts["weight"]
        count = weight.dim() - 2
        stride, dilation = (spread(settings.get(n, 1), count) for n in ("stride", "dilation"))
        before = spread(settings.get("padding", 0), count)
        groups = settings.get("groups", 1)
        assert isinstance(groups, int)
        inputs = weight.shape[0] // groups
        kernels = [
            weight[group * inputs : (group + 1) * inputs, output]
            for group, output in product(range(groups), range(weight.shape[1]))
        ]

        def cell_of(position: Sequence[int], tap: Sequence[int]) -> list[float]:
            along = zip(position, tap, stride, before, dilation, strict=True)
            return [(p + b - d * t) / s for p, t, s, b, d in along]

        return carried(case, shares(torch.stack(kernels), inputs), cell_of)

    return looped(rows)


def convolution(
    text: str, weight: Tensor, *, channels: int = 3, truth: Truth | None = None
) -> RuleCase:
    """``F.conv*d`` with the settings in ``text``."""
    count = weight.dim() - 2
    call = f"F.conv{count}d(x, self.weight{', ' * bool(text)}{text})"
    shape = (2, channels, *SHAPES[count][2:])
    truth = truth or sliding(eval(f"dict({text.replace('self.bias', '0')})"))
    parts = {"weight": weight} | ({"bias": values(len(weight))} if "self.bias" in text else {})
    return RuleCase(f"aten.conv{count}d", call, truth, parts, shape)


def transposed(text: str, weight: Tensor) -> RuleCase:
    """``F.conv_transpose*d`` with the settings in ``text``."""
    count = weight.dim() - 2
    call = f"F.conv_transpose{count}d(x, self.weight{', ' * bool(text)}{text})"
    name = f"aten.conv_transpose{count}d"
    shape = (2, len(weight), *SHAPES[count][2:])
    return RuleCase(name, call, spreading(eval(f"dict({text})")), {"weight": weight}, shape)


def zeroed(weight: Tensor, *index: int | slice) -> Tensor:
    weight = weight.clone()
    weight[index] = 0
    return weight


EVERY = slice(None)
KERNELS_1D = {
    3: (
        "",
        "bias=self.bias",
        "stride=2",
        "stride=5",
        "stride=3",
        "stride=(3,), padding='valid'",
        "stride=3, padding=1",
        "stride=3, dilation=2",
        "padding=1",
        "padding=(2,), dilation=(2,)",
        "padding=4",
        "stride=2, padding=1, dilation=3",
        "padding='same'",
        "padding='valid'",
        "padding='same', dilation=3",
    ),
    2: ("padding='same'", "padding='same', dilation=3", "stride=2", "stride=2, padding=1"),
    17: ("padding=8", "padding=2, stride=2", "padding='same'"),
    13: ("", "stride=13"),
    1: ("padding=1", "padding=2, stride=3"),
}
KERNELS_2D = {
    (3, 3): (
        "",
        "bias=self.bias, padding=1",
        "padding=(1, 0)",
        "padding=1, stride=2",
        "padding=(0, 2), stride=(2, 1), dilation=(1, 2)",
        "padding='same'",
        "padding=2, dilation=2",
        "stride=3",
        "stride=3, padding=1",
    ),
    (2, 3): (
        "stride=(2, 3)",
        "stride=(3, 2)",
        "stride=(2, 3), padding=(0, 1)",
        "stride=(2, 3), dilation=(2, 1)",
        "padding='same'",
    ),
    (1, 3): ("padding=(0, 1)", "stride=(1, 3)"),
    (3, 1): ("padding=(1, 0)", "padding='same', dilation=2"),
    (5, 7): ("", "stride=(5, 7)", "padding=(2, 3)"),
    (7, 2): ("padding=(3, 1)", "padding='same'"),
    (1, 1): ("padding=1",),
}
KERNELS_3D = {
    (1, 3, 3): ("padding=(0, 1, 1)",),
    (3, 1, 1): ("padding=(1, 0, 0)",),
    (2, 3, 2): ("stride=(1, 2, 1)", "stride=(2, 3, 2)", "padding='same'", "dilation=(1, 2, 3)"),
}
SLIDING = (
    *(convolution(t, values(5, 3, k)) for k, texts in KERNELS_1D.items() for t in texts),
    *(convolution(t, values(5, 3, *k)) for k, texts in KERNELS_2D.items() for t in texts),
    *(convolution(t, values(5, 3, *k)) for k, texts in KERNELS_3D.items() for t in texts),
)
GROUPED = (
    convolution("groups=3, padding=1", values(3, 1, 3)),
    convolution("groups=3, padding=1", values(3, 1, 3, 3)),
    convolution("groups=3, padding=(2, 1)", values(6, 1, 5, 3)),
    convolution("groups=2, stride=2", values(6, 2, 3, 3), channels=4),
    convolution("groups=3, stride=(2, 3)", values(3, 1, 2, 3)),
    convolution("groups=3, padding=1", values(6, 1, 3, 3, 3)),
    convolution("groups=3", values(6, 1, 1, 1), truth=stays),
)
ONE_TAP = (
    convolution("", values(5, 3, 1), truth=stays),
    convolution("bias=self.bias", values(5, 3, 1, 1), truth=stays),
    convolution("padding='same'", values(5, 3, 1, 1), truth=stays),
    convolution("", values(5, 3, 1, 1, 1), truth=stays),
    *(convolution(t, values(5, 3, 1)) for t in ("stride=2", "stride=(3,)")),
    *(convolution(t, values(5, 3, 1, 1)) for t in ("stride=2", "stride=(1, 3)")),
    convolution("stride=2, groups=3", values(6, 1, 1, 1)),
    convolution("stride=(1, 2, 3)", values(5, 3, 1, 1, 1)),
)
ZEROS = (
    *(
        replace(convolution("padding=1", weight), note=note)
        for note, weight in {
            "all zero": torch.zeros(5, 3, 3, 3),
            "one output channel zero": zeroed(values(5, 3, 3, 3), 2),
            "one tap zero": zeroed(values(5, 3, 3, 3), EVERY, EVERY, 1, 1),
            "all but one row zero": zeroed(values(5, 3, 3, 3), EVERY, EVERY, slice(1, 3)),
            "tiny": values(5, 3, 3, 3) * 1e-30,
            "huge": values(5, 3, 3, 3) * 1e30,
            "middle zero": zeroed(values(5, 3, 3), EVERY, EVERY, 1),
            "last two zero": zeroed(values(5, 3, 3), EVERY, EVERY, slice(1, 3)),
        }.items()
    ),
    convolution("padding=(1, 3)", zeroed(values(5, 3, 3, 7), EVERY, EVERY, EVERY, slice(1, 7))),
    transposed("stride=2, padding=1", torch.zeros(3, 5, 3, 3)),
    replace(transposed("stride=2", zeroed(values(3, 5, 3), EVERY, EVERY, 1)), note="middle zero"),
)
TRANSPOSED = (
    *(
        transposed(text, values(3, 5, 3))
        for text in (
            "",
            "stride=2",
            "stride=2, padding=1",
            "stride=2, padding=2, output_padding=1",
            "stride=3",
            "stride=3, output_padding=2",
            "stride=5",
            "padding=2",
            "dilation=2",
            "dilation=(3,), stride=(2,), padding=(1,)",
        )
    ),
    *(
        transposed(text, values(3, 5, 3, 2))
        for text in (
            "",
            "stride=(3, 2)",
            "stride=2, padding=1, output_padding=(1, 0)",
            "stride=(1, 3), padding=(2, 0), dilation=(2, 1)",
            "groups=3, stride=2",
        )
    ),
    transposed("groups=2, stride=2, padding=1", values(4, 3, 3)),
    transposed("groups=3, padding=1", values(3, 1, 3, 3)),
    transposed("", values(3, 5, 1)),
    transposed("stride=2", values(3, 5, 1, 1)),
    transposed("stride=(1, 2, 2), padding=(0, 1, 0)", values(3, 5, 1, 3, 2)),
    transposed("stride=2, groups=3", values(3, 2, 2, 2, 2)),
)
"""Other layouts of the traced operand; without padding the kernel's shares are the Jacobian's."""
MERGED = "x.view(-1, 3, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)"
KERNEL = {"weight": values(5, 3, 3, 2)}
ELSEWHERE = (
    RuleCase("aten.conv2d", "F.conv2d(x, self.weight, stride=(2, 1))", mixes(), KERNEL),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.movedim(-1, 1), self.weight, dilation=(1, 2))",
        mixes(),
        KERNEL,
        (2, 5, 7, 3),
        3,
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.permute(0, 3, 2, 1), self.weight).permute(0, 3, 2, 1)",
        mixes(channel_dim=3),
        KERNEL,
        (2, 5, 7, 3),
        3,
    ),
    RuleCase("aten.conv2d", "F.conv2d(x.mT, self.weight)", mixes(), KERNEL),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.mT.unflatten(2, (5, 7)), self.weight)",
        mixes(),
        KERNEL,
        (2, 35, 3),
        2,
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.unflatten(3, (2, 2)).movedim(3, 1).flatten(0, 1), self.weight)",
        mixes(),
        {"weight": values(5, 3, 3, 2)},
        (2, 3, 5, 4),
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.movedim(2, 1).flatten(0, 1), self.weight)",
        mixes(),
        KERNEL,
        (2, 3, 3, 4, 5),
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.movedim(2, 1).flatten(0, 1), self.weight).unflatten(0, (-1, 3))",
        mixes(channel_dim=2),
        KERNEL,
        (2, 3, 3, 4, 5),
    ),
    RuleCase(
        "aten.conv1d", "F.conv1d(x.flatten(2), self.weight)", mixes(), {"weight": values(5, 3, 3)}
    ),
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x.flatten(2), self.weight, stride=3)",
        alike,
        {"weight": values(5, 3, 3)},
    ),
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x.movedim(3, 1).flatten(0, 1), self.weight)",
        mixes(),
        {"weight": values(5, 3, 2)},
    ),
    # Positions as channels: a learned mixing of tokens, whose channels are space to the operator.
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x.flatten(2).mT, self.weight)",
        mixes(channel_dim=2),
        {"weight": values(11, 35, 1)},
    ),
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x, self.weight)",
        mixes(channel_dim=2),
        {"weight": values(11, 13, 1)},
        (2, 13, 3),
        2,
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.movedim(1, 3), self.weight)",
        mixes(channel_dim=3),
        {"weight": values(11, 5, 1, 1)},
    ),
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x, self.weight, groups=13)",
        stays,
        {"weight": values(13, 1, 1)},
        (2, 13, 3),
        2,
    ),
    # Positions inside the channels: merged patches.
    RuleCase(
        "aten.conv2d",
        f"F.conv2d({MERGED}, self.weight)",
        alike,
        {"weight": values(5, 12, 1, 1)},
        (2, 3, 4, 6),
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.flatten(1)[:, :, None, None], self.weight)",
        averages(
            *(
                f"x[:, :1, {i}:{i + 1}, {j}:{j + 1}].expand(-1, 11, -1, -1)"
                for i in range(2)
                for j in range(5)
            )
        ),
        {"weight": values(11, 30, 1, 1)},
        (2, 3, 2, 5),
    ),
    # Where no label varies along space, nothing is mixed.
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.mean((2, 3), keepdim=True), self.weight, padding=1)",
        alike,
        {"weight": values(5, 3, 3, 3)},
    ),
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.mean((2, 3), keepdim=True).expand(-1, -1, 5, 7), self.weight, stride=2)",
        alike,
        {"weight": values(5, 3, 3, 3)},
    ),
    RuleCase(
        "aten.conv1d",
        "F.conv1d(x.mean((2, 3)).unsqueeze(1), self.weight, padding=1)",
        alike,
        {"weight": values(1, 1, 3)},
    ),
    RuleCase(
        "aten.conv_transpose2d",
        "F.conv_transpose2d(x.mean((2, 3), keepdim=True), self.weight)",
        alike,
        {"weight": values(3, 5, 2, 3)},
    ),
    RuleCase(
        "aten.conv_transpose2d",
        "F.conv_transpose2d(x.movedim(-1, 1), self.weight, stride=2)",
        mixes(),
        {"weight": values(3, 5, 2, 2)},
        (2, 5, 7, 3),
        3,
    ),
    RuleCase(
        "aten.conv_transpose1d",
        "F.conv_transpose1d(x.movedim(2, 1).flatten(0, 1), self.weight, stride=3)",
        mixes(),
        {"weight": values(3, 5, 3)},
    ),
    # Taps along tokens alone pass channels by, and windows of merged patches are those of pixels.
    RuleCase(
        "aten.conv2d",
        "F.conv2d(x.flatten(2).mT.unsqueeze(1), self.weight)",
        mixes(channel_dim=(1, 3)),
        {"weight": values(5, 1, 3, 1)},
    ),
    RuleCase(
        "aten.conv2d",
        f"F.conv2d({MERGED}, self.weight)",
        mixes(),
        {"weight": values(5, 12, 1, 2)},
        (2, 3, 4, 6),
    ),
    # A convolution of attention scores gives other scores.
    *(
        RuleCase(
            "aten.conv2d",
            f"F.conv2d(x.mT.unsqueeze(1) @ x.unsqueeze(1), self.weight{text}).softmax(-1)"
            " @ x.mT.unsqueeze(1)",
            mixes(
                f"F.conv2d(x.mT.unsqueeze(1) @ x.unsqueeze(1), self.weight{text}).softmax(-1)"
                ".detach() @ x.mT.unsqueeze(1)",
                channel_dim=(1, 3),
            ),
            {"weight": weight},
            (2, 3, 11),
        )
        for text, weight in (("", values(5, 1, 1, 1)), (", padding=1", values(5, 1, 3, 3)))
    ),
)


def own_kernels(
    out: int, inside: int, kernel: Shape, groups: int = 1, **settings: object
) -> RuleCase:
    """A kernel for each image, computed from its mean color; the batch among the channels."""
    count = len(kernel)
    experts = values(3, out * inside * prod(kernel))

    def truth(case: RuleCase) -> list[Tensor | None]:
        colors = case.images().double().flatten(2).mean(2)
        found = []
        for image, weight in enumerate(colors @ case.parts["experts"].double()):
            parts = {**case.parts, "weight": weight.view(out, inside, *kernel)}
            (rows,) = sliding(settings)(replace(case, parts=parts))
            assert rows is not None
            found.append(rows[image])
        return [torch.stack(found)]

    weights = f"(x.flatten(2).mean(2) @ self.experts).view({(-1, inside, *kernel)})"
    given = "".join(f", {name}={value}" for name, value in settings.items())
    images = "x.flatten(0, 1)[None]"
    call = f"F.conv{count}d({images}, {weights}{given}, groups={groups} * x.shape[0])"
    code = f"{call}[0].unflatten(0, (x.shape[0], -1))"
    return RuleCase(f"aten.conv{count}d", code, truth, {"experts": experts}, SHAPES[count])


OWN_KERNELS = (
    own_kernels(5, 3, (3, 2)),
    own_kernels(5, 3, (3, 3), padding=1),
    own_kernels(6, 1, (2, 3), groups=3, stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    own_kernels(3, 1, (5,), groups=3, padding=2),
    own_kernels(5, 3, (2, 2), stride=(2, 2)),
    own_kernels(5, 3, (1, 1)),
)

CASES = (*SLIDING, *GROUPED, *ONE_TAP, *ZEROS, *TRANSPOSED, *ELSEWHERE, *OWN_KERNELS)

POSITIONS_AS_CHANNELS = "positions in its channel axis"
REFUSED = (
    # Taps slide over channels while the channels of the kernel are positions.
    *(
        Refusal(
            f"F.conv1d(x.flatten(2).mT, self.weight, padding=1{groups})",
            POSITIONS_AS_CHANNELS,
            {"weight": weight},
        )
        for groups, weight in (("", values(11, 35, 3)), (", groups=35", values(35, 1, 3)))
    ),
    Refusal(
        "F.conv_transpose1d(x.flatten(2).mT, self.weight)",
        "needs channels in axis 1",
        {"weight": values(35, 5, 3)},
    ),
    # To the operator channels are one side of space.
    Refusal(
        "F.conv2d(x.flatten(2).mT.unsqueeze(1), self.weight)",
        "an axis of space is not made of positions: 3 channel",
        {"weight": values(5, 1, 3, 2)},
    ),
    Refusal(
        "F.conv3d(x.unflatten(1, (3, 1)).unsqueeze(-1).view(-1, 3, 2, 2, 3, 2, 1)"
        ".permute(0, 1, 3, 5, 2, 4, 6).flatten(1, 3), self.weight, padding=1)",
        "over 4 dimensions of positions",
        {"weight": values(5, 12, 3, 3, 3)},
        (2, 3, 4, 6),
    ),
    # Every second merged patch.
    Refusal(
        f"F.conv2d({MERGED}, self.weight, stride=2)",
        "a strided convolution of one tap",
        {"weight": values(5, 12, 1, 1)},
        (2, 3, 4, 6),
    ),
    Refusal(
        f"F.conv2d({MERGED}, self.weight, groups=2)",
        "a grouped convolution contracts an axis that has positions",
        {"weight": values(4, 6, 1, 1)},
        (2, 3, 4, 6),
    ),
    Refusal("F.conv2d(x[0], self.weight)", "without a batch axis", KERNEL),
    Refusal("F.conv2d(x, x[:, :, :2, :2])", "a kernel computed from the image"),
    Refusal(
        "F.conv2d(x, x.mean((0, 2, 3)).view(1, 3, 1, 1).expand(-1, -1, 2, 2))",
        "a kernel computed from the image",
    ),
    Refusal(  # the kernels of all images, but the batch does not stand first among them
        "F.conv2d(x.flatten(0, 1)[None], (x.flatten(2).mean(2) @ self.experts)"
        ".view(-1, 5, 3, 3, 2).transpose(0, 1).reshape(-1, 3, 3, 2), groups=x.shape[0])",
        "a kernel computed from the image",
        {"experts": values(3, 90)},
    ),
    Refusal(
        "F.conv_transpose2d(x, x.transpose(0, 1)[:, :, :2, :2])",
        "a constant kernel",
        shape=(3, 3, 5, 7),
    ),
)
