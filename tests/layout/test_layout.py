"""The layout algebra against an index tensor that torch carries through the same chain of views.

Every position of an activation has a number of its own; the activation's values are these numbers,
repeated over channels. `view`, `permute` and the rest move them. What a `Layout` says is then
*read back*: the field of numbers, as `arrange` asks for it, must hold for every activation element
the number that torch's own views have brought there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labeltrace.errors import LayoutError
from labeltrace.layout import (
    BATCH,
    Arrangement,
    Factor,
    Kind,
    Layout,
    align_axes,
    arrange,
    arrange_by_axis,
    arrange_positions,
    axis_size,
    batch_size,
    channel,
    expand,
    has_channels,
    has_positions,
    input_layout,
    permute,
    positions,
    renumbered,
    shape_text,
    simplify,
    size_text,
    unsqueeze,
    view,
)

many = settings(max_examples=300, derandomize=True, deadline=None, database=None)

BATCH_SIZE = 11
"""A concrete batch, a prime that no other size has."""


# What a layout says, read back.


def arranged(numbers: Tensor, arrangement: Arrangement) -> Tensor:
    """The field split into ``sizes``, permuted and merged into the groups."""
    order = [slot for group in arrangement.groups for slot in group]
    # Dimensions of size one that no group names do not matter.
    split = numbers.reshape(arrangement.sizes)
    rest = [slot for slot in range(split.dim()) if slot not in order]
    return split.permute(*order, *rest).reshape(arrangement.shape)


def activation(layout: Layout, numbers: Tensor) -> Tensor:
    """Every activation element's number, factor by factor, straight from the definitions."""
    sizes = layout.field_sizes
    split = numbers.reshape(sizes)
    factors = [factor for axis in layout.axes for factor in axis]
    slots = [factor.field_dim for factor in factors if factor.is_position]
    dense = split.permute(slots)
    shape = [factor.size if factor.is_position else 1 for factor in factors]
    dense = dense.reshape(shape).expand([factor.size for factor in factors])
    return dense.reshape(layout.shape)


@dataclass(frozen=True)
class Pair:
    """A layout and the tensor that torch makes by the same steps."""

    layout: Layout
    tensor: Tensor
    numbers: Tensor

    def check(self) -> None:
        assert self.layout.shape == tuple(self.tensor.shape)
        assert math.prod(self.layout.field_sizes) == self.numbers.numel()
        assert torch.equal(activation(self.layout, self.numbers), self.tensor)
        slots = sorted(f.field_dim for axis in self.layout.axes for f in axis if f.is_position)
        assert slots == list(range(len(slots)))


def start(sizes: Sequence[int], channel_dim: int, batch: int = BATCH_SIZE) -> Pair:
    """A batch of images of `sizes`, and the number of each position."""
    shape = [batch, *sizes]
    layout = input_layout(shape, channel_dim)
    numbers = torch.arange(math.prod(shape) // shape[channel_dim])
    kept = [size for dim, size in enumerate(shape) if dim != channel_dim]
    tensor = numbers.reshape(kept).unsqueeze(channel_dim).expand(shape)
    return Pair(layout, tensor, numbers)


def split_sizes(draw: st.DrawFn, size: int) -> list[int]:
    """A size as a product of up to three."""
    found: list[int] = []
    while size > 1 and len(found) < 2:
        part = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        found.append(part)
        size //= part
    return [*found, size]


def step(draw: st.DrawFn, pair: Pair) -> Pair:
    """One view of torch's and the same step of the layout."""
    shape = list(pair.tensor.shape)
    layout, tensor = pair.layout, pair.tensor
    kind = draw(
        st.sampled_from(["permute", "split", "merge", "view", "unsqueeze", "expand", "simplify"])
    )
    if kind == "permute":
        dims = draw(st.permutations(range(len(shape))))
        return replace(pair, layout=permute(layout, dims), tensor=tensor.permute(dims))
    if kind == "simplify":
        return replace(pair, layout=simplify(layout))
    if kind == "unsqueeze" and len(shape) < 7:
        dim = draw(st.integers(0, len(shape)))
        return replace(pair, layout=unsqueeze(layout, dim), tensor=tensor.unsqueeze(dim))
    if kind == "expand":
        free = [
            d for d, size in enumerate(shape) if size == 1 and not has_positions(layout.axes[d])
        ]
        target = list(shape)
        for dim in free:
            target[dim] = draw(st.sampled_from([1, 3]))
        target = draw(st.sampled_from([[], [1], [2]])) + target if len(shape) < 6 else target
        if math.prod(target) < 200_000:
            return replace(pair, layout=expand(layout, target), tensor=tensor.expand(target))
        return pair
    if kind == "split":
        dim = draw(st.integers(0, len(shape) - 1))
        target = [*shape[:dim], *split_sizes(draw, shape[dim]), *shape[dim + 1 :]]
    elif kind == "merge" and len(shape) > 1:
        first = draw(st.integers(0, len(shape) - 2))
        last = draw(st.integers(first + 1, len(shape) - 1))
        target = [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]]
    else:  # other axes altogether, cut wherever factors end
        ends = list(itertools.accumulate((f.size for a in layout.axes for f in a), int.__mul__))
        cuts = sorted(draw(st.sets(st.sampled_from(ends or [1]), max_size=4)))
        whole = math.prod(shape)
        bounds = [1, *(c for c in cuts if 1 < c < whole), whole]
        target = [b // a for a, b in itertools.pairwise(bounds)]
    try:
        moved = view(layout, target)
    except LayoutError:
        assert kind != "merge", f"a merge of whole axes was refused: {layout} as {target}"
        return pair
    return replace(pair, layout=moved, tensor=tensor.reshape(target))


@st.composite
def chains(draw: st.DrawFn, batch: int = BATCH_SIZE) -> Pair:
    sizes = draw(st.permutations([6, 4, 5]))[: draw(st.integers(1, 3))]
    channel_dim = draw(st.integers(1, len(sizes)))
    pair = start(sizes, channel_dim, batch)
    for _ in range(draw(st.integers(1, 7))):
        pair = step(draw, pair)
        pair.check()
    return pair


@many
@given(chains())
def test_chains_of_views_are_torchs(pair: Pair) -> None:
    pair.check()


@many
@given(chains(), st.data())
def test_arrange_gives_the_dimensions_asked_for(pair: Pair, data: st.DataObject) -> None:
    """Any grouping of the factors, against the number of each place."""
    layout = pair.layout
    factors = [f for axis in layout.axes for f in axis]
    order = data.draw(st.permutations(factors)) if len(factors) < 8 else factors
    cut = data.draw(st.integers(0, len(order)))
    groups = [order[:cut], order[cut:]]
    field = arranged(pair.numbers, arrange(layout, groups))
    spread = activation(layout, pair.numbers).reshape([f.size for f in factors])
    for place in itertools.product(*(range(min(f.size, 3)) for f in factors)):
        at = dict(zip(map(id, factors), place, strict=True))
        index = []
        for group in groups:
            flat = 0
            for factor in group:
                if factor.is_position:
                    flat = flat * factor.size + at[id(factor)]
            index.append(flat)
        assert field[tuple(index)] == spread[place]


@many
@given(chains())
def test_arrange_by_axis_has_a_dimension_for_each_axis_with_positions(pair: Pair) -> None:
    field = arranged(pair.numbers, arrange_by_axis(pair.layout))
    varying = [axis for axis in pair.layout.axes if has_positions(axis)]
    assert list(field.shape) == [
        math.prod(factor.size for factor in positions(axis)) for axis in varying
    ]
    # Over these dimensions the label of every element is found again.
    reduced = Layout(tuple(positions(axis) for axis in varying))
    assert torch.equal(field, activation(reduced, pair.numbers))


@many
@given(chains(), st.data())
def test_arrange_positions_merges_only_the_axes_named(pair: Pair, data: st.DataObject) -> None:
    layout = pair.layout
    candidates = [
        dim for dim, axis in enumerate(layout.axes) if axis and all(f.is_position for f in axis)
    ]
    merged = sorted(data.draw(st.sets(st.sampled_from(candidates))) if candidates else [])
    arrangement, dims, fresh = arrange_positions(layout, merged)
    field = arranged(pair.numbers, arrangement)
    assert torch.equal(activation(fresh, field), pair.tensor)
    for dim in merged:
        assert field.shape[dims[dim]] == pair.tensor.shape[dim]
        assert len(fresh.axes[dim]) == 1
    assert fresh == renumbered(fresh.axes)


@many
@given(chains())
def test_simplify_is_idempotent_and_keeps_the_meaning(pair: Pair) -> None:
    simple = simplify(pair.layout)
    assert simplify(simple) == simple
    replace(pair, layout=simple).check()
    assert sum(map(len, simple.axes)) <= sum(map(len, pair.layout.axes))
    # The same label seen through a detour of views has the same layout.
    whole = view(pair.layout, [axis_size(a) for a in pair.layout.axes])
    assert whole == simple


def test_a_repeated_factor_of_size_one_separates_nothing() -> None:
    axis = (Factor(5, Kind.POSITION, 0), Factor(1, Kind.REPEATED), Factor(7, Kind.POSITION, 1))
    assert simplify(Layout((axis,))) == Layout(((Factor(35, Kind.POSITION, 0),),))


def test_a_position_of_size_one_after_all_axes_joins_the_last() -> None:
    layout = permute(input_layout((11, 1, 5, 3), 3), (0, 2, 3, 1))
    found = view(layout, (11, 15))
    assert str(found) == "(11 batch, 5 position * 3 channel * 1 position)"


@many
@given(st.randoms(use_true_random=False), st.data())
def test_a_dynamic_batch_gives_the_same_layouts(seed: object, data: st.DataObject) -> None:
    """Chains over a batch of 11 and over BATCH, step by step."""
    sizes = data.draw(st.permutations([6, 4, 5]))
    layout, dynamic = input_layout([BATCH_SIZE, *sizes], 1), input_layout([BATCH, *sizes], 1)
    for _ in range(data.draw(st.integers(1, 6))):
        shape = list(layout.shape)
        kind = data.draw(st.sampled_from(["permute", "merge", "split"]))
        if kind == "permute":
            dims = data.draw(st.permutations(range(len(shape))))
            layout, dynamic = permute(layout, dims), permute(dynamic, dims)
        else:
            if kind == "merge" and len(shape) > 1:
                first = data.draw(st.integers(0, len(shape) - 2))
                target = [*shape[:first], shape[first] * shape[first + 1], *shape[first + 2 :]]
            else:
                dim = data.draw(st.integers(0, len(shape) - 1))
                target = [*shape[:dim], *split_sizes(data.draw, shape[dim]), *shape[dim + 1 :]]
            outcomes = []
            with_sentinel = [
                size // BATCH_SIZE * BATCH if size % BATCH_SIZE == 0 else size for size in target
            ]
            for before, wanted in ((layout, target), (dynamic, with_sentinel)):
                try:
                    outcomes.append(view(before, wanted))
                except LayoutError:
                    outcomes.append(None)
            assert (outcomes[0] is None) == (outcomes[1] is None)
            if outcomes[0] is None:
                continue
            layout, dynamic = outcomes
        assert _concrete(dynamic) == layout


def _concrete(layout: Layout) -> Layout:
    return Layout(
        tuple(
            tuple(
                f if isinstance(f.size, int) else replace(f, size=f.size.at(BATCH_SIZE))
                for f in axis
            )
            for axis in layout.axes
        )
    )


# Several layouts.


KINDS = ("map", "windows", "mean", "tokens", "channels", "mixed", "features")


@st.composite
def operands(draw: st.DrawFn) -> tuple[list[Pair], list[int]]:
    """Activations of one model that broadcast against one another, of different making."""
    rows, columns, width = 6, 4, 5
    pairs = []
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS))
        if kind == "map":  # (B, rows * columns, C)
            layout = input_layout((BATCH_SIZE, rows, columns, width), 3)
            made = view(layout, (BATCH_SIZE, rows * columns, width))
        elif kind == "windows":
            layout = renumbered(
                input_layout((BATCH_SIZE, rows // 2, columns // 2, 2, 2, width), 5).axes
            )
            made = view(permute(layout, (0, 1, 3, 2, 4, 5)), (BATCH_SIZE, rows * columns, width))
        elif kind == "mean":  # no tokens: broadcast
            made = renumbered(((Factor(BATCH_SIZE, Kind.BATCH),), (), channel(width)))
            made = expand(made, (BATCH_SIZE, 1, width))
        elif kind == "tokens":
            made = input_layout((BATCH_SIZE, rows * columns, width), 2)
        elif kind == "mixed":  # channels and positions in one axis, positions in the last
            made = view(
                input_layout((BATCH_SIZE, 2, 12, width), 1), (BATCH_SIZE, rows * columns, width)
            )
        elif kind == "features":  # channels in the place of tokens, to be cut where positions are
            made = input_layout((BATCH_SIZE, rows * columns, width), 1)
        else:  # channels that broadcast
            made = view(
                input_layout((BATCH_SIZE, rows * columns, 1), 2), (BATCH_SIZE, rows * columns, 1)
            )
        numbers = torch.arange(math.prod(made.field_sizes)) + 10_000 * index
        pairs.append(Pair(made, activation(made, numbers), numbers))
    shape = list(torch.broadcast_shapes(*(pair.tensor.shape for pair in pairs)))
    if draw(st.booleans()):  # the same seen as maps
        views = []
        for pair in pairs:
            target = [BATCH_SIZE, 1, 1, pair.tensor.shape[-1]]
            if pair.tensor.shape[1] > 1:
                target[1:3] = rows, columns
            views.append(Pair(view(pair.layout, target), pair.tensor.reshape(target), pair.numbers))
        pairs, shape = (
            views,
            [shape[0], rows if shape[1] > 1 else 1, columns if shape[1] > 1 else 1, shape[-1]],
        )
    return pairs, shape


@many
@given(operands())
def test_align_cuts_operands_into_common_cells(case: tuple[list[Pair], list[int]]) -> None:
    """Each operand's field broadcasts over the result's, and has its own number at every place."""
    pairs, shape = case
    try:
        alignment = align_axes([pair.layout for pair in pairs], shape)
    except LayoutError as error:  # only channels in an axis of positions can make that so
        assert "do not nest" in str(error)
        assert any(
            has_channels(axis) and has_positions(axis) for p in pairs for axis in p.layout.axes
        )
        return
    layout = alignment.layout
    assert layout.shape == tuple(shape)
    assert layout == renumbered(layout.axes)
    for index, pair in enumerate(pairs):
        field = arranged(pair.numbers, alignment.arrangement(index))
        spread = field.expand(layout.field_sizes)
        assert torch.equal(activation(layout, spread.reshape(-1)), pair.tensor.expand(shape))


@many
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans())
def test_align_joins_pieces_along_an_axis(sizes: list[int], windows: bool) -> None:
    layouts = []
    for size in sizes:
        layout = input_layout((BATCH_SIZE, size, 6, 5), 3)
        if windows:
            layout = view(
                permute(input_layout((BATCH_SIZE, 2, size, 3, 5), 4), (0, 2, 3, 1, 4)),
                (BATCH_SIZE, size, 6, 5),
            )
        layouts.append(layout)
    shape = (BATCH_SIZE, sum(sizes), 6, 5)
    alignment = align_axes(layouts, shape, concatenated=1)
    assert alignment.layout.shape == shape
    pieces, wanted = [], []
    for index, layout in enumerate(layouts):
        numbers = torch.arange(math.prod(layout.field_sizes)) + 10_000 * index
        pieces.append(arranged(numbers, alignment.arrangement(index)))
        wanted.append(activation(layout, numbers))
    slot = alignment.layout.axes[1][0].field_dim
    joined = torch.cat(pieces, slot)
    assert torch.equal(activation(alignment.layout, joined.reshape(-1)), torch.cat(wanted, 1))


def test_align_refuses_operands_that_cut_an_axis_in_ways_that_do_not_nest() -> None:
    rows_first = view(input_layout((2, 4, 3, 5), 3), (2, 12, 5))
    channels_first = view(input_layout((2, 3, 4, 5), 1), (2, 12, 5))
    columns_first = view(permute(input_layout((2, 3, 4, 5), 3), (0, 2, 1, 3)), (2, 12, 5))
    align_axes([rows_first, columns_first], (2, 12, 5))  # both are positions all through
    with pytest.raises(
        LayoutError, match=r"in ways that do not nest: 4 position \* 3 position, 3 "
    ):
        align_axes([columns_first, channels_first], (2, 12, 5))


# Errors and words.


def test_views_that_cut_through_a_factor_are_refused() -> None:
    layout = permute(input_layout((2, 3, 5, 7), 1), (0, 1, 3, 2))
    assert view(layout, (2, 3, 35)).shape == (2, 3, 35)
    words = re.escape(
        "a view of (2 batch, 3 channel, 7 position, 5 position) as (2, 15, 7) cuts through a "
        "factor: an index of the axis of size 15 would mix parts of several positions"
    )
    with pytest.raises(LayoutError, match=words):
        view(layout, (2, 15, 7))


def test_views_cut_a_dynamic_batch_where_every_size_of_it_can_be_cut() -> None:
    layout = input_layout((BATCH, 4, 6), 2)
    assert view(layout, (BATCH * 4, 6)).shape == (BATCH * 4, 6)
    with pytest.raises(LayoutError, match=r"as \(2, .*cuts through a factor"):
        view(layout, (2, BATCH * 2, 6))
    even = batch_size(step=2)
    halves = view(input_layout((even, 4, 6), 2), (2, even * 2, 6))
    assert str(halves) == "(2 batch, B // 2 batch * 4 position, 6 channel)"
    assert view(halves, (even, 4, 6)) == input_layout((even, 4, 6), 2)


@pytest.mark.parametrize(
    ("sizes", "dims", "shape", "expected"),
    [
        (
            (2, 6, 1, 11),
            (0, 3, 2, 1),
            (2, 11, 2, 3),
            "2 batch, 11 position * 1 position, 2 ch, 3 ch",
        ),
        ((2, 6, 1, 11), (0, 3, 2, 1), (2, 11, 1, 6), "2 batch, 11 position, 1 position, 6 ch"),
        ((2, 6, 1, 11), (0, 2, 3, 1), (2, 11, 6), "2 batch, 11 position, 6 ch"),
        ((1, 6, 11), (2, 0, 1), (11, 2, 3), "11 position * 1 batch, 2 ch, 3 ch"),
        ((1, 6, 11), (2, 0, 1), (11, 1, 6), "11 position, 1 batch, 6 ch"),
        ((1, 6, 11), (2, 0, 1), (11, 6, 1), "11 position * 1 batch, 6 ch, 1"),
        ((1, 6, 11, 7), (2, 0, 3, 1), (11, 7, 6), "11 position, 1 batch * 7 position, 6 ch"),
        ((2, 1, 11), (0, 2, 1), (2, 11), "2 batch, 11 position"),
        ((2, 6, 1), (0, 2, 1), (2, 2, 3), "2 batch, 1 position * 2 ch, 3 ch"),
        # Heads folded into a batch of one.
        ((1, 6, 11), (0, 1, 2), (2, 3, 11), "1 batch * 2 ch, 3 ch, 11 position"),
    ],
)
def test_positions_of_size_one_stay_next_to_positions(
    sizes: tuple[int, ...], dims: tuple[int, ...], shape: tuple[int, ...], expected: str
) -> None:
    found = view(permute(input_layout(sizes, 1), dims), shape)
    assert str(found).replace("channel", "ch") == f"({expected})"


def test_a_view_of_nothing_may_have_any_axes() -> None:
    layout = input_layout((2, 0), 1)
    with pytest.raises(LayoutError, match=r"has fewer indices than a view \(2, 0, 7\) of it"):
        view(layout, (2, 0, 7))
    empty = input_layout((2, 5, 0), 1)
    assert view(empty, (2, 5, 0, 7)).shape == (2, 5, 0, 7)
    assert str(view(input_layout((0, 5, 4), 1), (0, 5, 2, 2))) == (
        "(0 batch, 5 channel, 2 position, 2 position)"  # channels stay, as in any other batch
    )


def test_positions_are_not_repeated_and_not_dropped() -> None:
    layout = input_layout((2, 1, 5), 2)
    assert str(expand(layout, (2, 3, 5))) == "(2 batch, 1 position * 3 repeated, 5 channel)"
    wide = input_layout((2, 3, 5), 2)
    with pytest.raises(LayoutError, match="an axis of 3 position cannot be repeated to 4 indices"):
        expand(wide, (2, 4, 5))
    with pytest.raises(LayoutError, match=r"positions of .* would be dropped without being"):
        arrange(wide, [wide.axes[0]])
    assert arrange(layout, [layout.axes[0]]).shape == (2,)


def test_sizes_read_as_a_person_writes_them() -> None:
    assert size_text(7) == "7"
    assert size_text(BATCH) == "B"
    assert shape_text((BATCH * 3, 5)) == "(3*B, 5)"
    assert str(view(input_layout((BATCH, 4, 6), 2), (BATCH, 2, 2, 6))) == (
        "(B batch, 2 position, 2 position, 6 channel)"
    )
    assert str(unsqueeze(input_layout((2, 3), 1), 1)) == "(2 batch, 1, 3 channel)"
