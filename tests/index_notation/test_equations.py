"""Equations: text and object are the same thing, and each name has its meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrace.errors import NotationError
from labeltrace.index_notation.attention_equation import AttentionEquation
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.index_notation.parsing import Axes, Names, flattened
from labeltrace.index_notation.spare_names import SpareNames

LETTERS = "abcdefghijklmn"


@st.composite
def grouped(draw: st.DrawFn, names: Names) -> Axes:
    """The names as axes, some of which have several of them."""
    axes: list[list[str]] = []
    for name in draw(st.permutations(names)):
        if axes and draw(st.booleans()):
            axes[-1].append(name)
        else:
            axes.append([name])
    return tuple(map(tuple, axes))


@st.composite
def roles(draw: st.DrawFn, *names: str) -> dict[str, Names]:
    """Up to two letters for each role."""
    letters = iter(LETTERS)
    return {name: tuple(next(letters) for _ in range(draw(st.integers(0, 2)))) for name in names}


def sizes_of(axes: Axes) -> tuple[tuple[str, int], ...]:
    return tuple((name, 2 + index) for axis in axes for index, name in enumerate(axis[1:]))


@st.composite
def mixing_equations(draw: st.DrawFn) -> tuple[MixingEquation, dict[str, Names]]:
    found = draw(roles("batch", "heads", "rows", "columns", "free"))
    weights = draw(grouped(found["batch"] + found["heads"] + found["rows"] + found["columns"]))
    labels = draw(st.permutations(found["batch"] + found["columns"] + found["free"]))
    result = draw(st.permutations(found["batch"] + found["rows"] + found["free"]))
    return MixingEquation(weights, tuple(labels), tuple(result), sizes_of(weights)), found


@given(mixing_equations())
def test_mixing_equations_are_read_again(case: tuple[MixingEquation, dict[str, Names]]) -> None:
    equation, _ = case
    found = MixingEquation.parse(str(equation), equation.sizes)
    assert found == equation
    assert hash(found) == hash(equation)
    assert str(found) == str(equation)


@given(mixing_equations())
def test_each_name_of_a_mixing_equation_has_one_meaning(
    case: tuple[MixingEquation, dict[str, Names]],
) -> None:
    equation, expected = case
    with_columns = {
        name for axis in equation.weights if set(axis) & set(expected["columns"]) for name in axis
    }
    assert set(equation.heads) == set(expected["heads"]) - with_columns
    assert set(equation.repeats) == set(expected["heads"]) & with_columns
    for role in ("batch", "rows", "columns", "free"):
        assert set(getattr(equation, role)) == set(expected[role])
    found = [equation.batch, equation.heads, equation.repeats, equation.rows, equation.columns]
    assert sorted(flattened(found)) == sorted(equation.weight_names)


def test_names_stay_in_the_order_of_the_weights() -> None:
    equation = MixingEquation.parse("(h g) q b (s r k), k f b -> b q f", (("g", 2), ("r", 5)))
    assert equation.weights == (("h", "g"), ("q",), ("b",), ("s", "r", "k"))
    assert equation.heads == ("h", "g")
    assert equation.repeats == ("s", "r")
    assert (equation.batch, equation.rows, equation.columns) == (("b",), ("q",), ("k",))
    assert equation.free == ("f",)
    assert equation.sizes == (("g", 2), ("r", 5))


@given(st.data())
def test_linear_mixing_equations_are_read_again(data: st.DataObject) -> None:
    found = data.draw(roles("batch", "heads", "features", "rows", "columns", "free"))
    shared = found["batch"] + found["heads"] + found["features"]
    query, key = (
        data.draw(grouped(shared + found["rows"])),
        data.draw(grouped(shared + found["columns"])),
    )
    labels = tuple(data.draw(st.permutations(found["batch"] + found["columns"] + found["free"])))
    result = tuple(data.draw(st.permutations(found["batch"] + found["rows"] + found["free"])))
    sizes = sizes_of(query)
    equation = LinearMixingEquation(query, key, labels, result, found["heads"], sizes)
    assert LinearMixingEquation.parse(str(equation), found["heads"], sizes) == equation
    assert set(equation.columns) == set(found["columns"])
    assert equation.query_names == flattened(query)
    assert equation.key_names == flattened(key)


@given(st.data())
def test_contraction_equations_are_read_again(data: st.DataObject) -> None:
    names = st.lists(st.sampled_from(["...", *LETTERS]), unique=True, max_size=5).map(tuple)
    first, second = data.draw(names), data.draw(names)
    result = data.draw(
        st.lists(st.sampled_from((*first, *second)), unique=True).map(tuple)
        if first + second
        else st.just(())
    )
    equation = ContractionEquation(first, second, result)
    assert ContractionEquation.parse(str(equation)) == equation


@pytest.mark.parametrize(
    ("text", "ranks", "rank", "named"),
    [
        ("... i, o i -> ... o", (2, 2), 2, "a i, o i -> a o"),
        ("... i, o i -> ... o", (4, 2), 4, "a b c i, o i -> a b c o"),
        ("... r k, ... k c -> ... r c", (4, 3), 4, "a b r k, b k c -> a b r c"),
        ("... r k, ... k c -> ... r c", (2, 2), 2, "r k, k c -> r c"),
        ("b ... a, a -> b ...", (4, 1), 3, "b c d a, a -> b c d"),
        ("b i, o i -> b o", (2, 2), 2, "b i, o i -> b o"),
        ("i, -> i", (1, 0), 1, "i,  -> i"),
    ],
)
def test_an_ellipsis_gets_letters_aligned_at_the_last_axes(
    text: str, ranks: tuple[int, int], rank: int, named: str
) -> None:
    assert str(ContractionEquation.parse(text).with_axes_named(ranks, rank)) == named


@pytest.mark.parametrize(
    ("text", "ranks", "rank", "side"),
    [
        ("b i, o i -> b o", (3, 2), 2, "'b i' in 'b i, o i -> b o' does not .* that has 3"),
        ("b i, o i -> b o", (2, 1), 2, "'o i' in 'b i, o i -> b o' does not .* that has 1"),
        ("... i, o i -> ... o", (0, 2), 1, "'... i' in '... i, o i -> ... o' .* that has 0"),
        ("b i, o i -> b o", (2, 2), 3, "'b o' in .* does not name the axes of a tensor that has 3"),
    ],
)
def test_an_equation_names_every_axis_of_its_tensors(
    text: str, ranks: tuple[int, int], rank: int, side: str
) -> None:
    with pytest.raises(NotationError, match=side):
        ContractionEquation.parse(text).with_axes_named(ranks, rank)


def test_what_the_names_are_to_attention() -> None:
    equation = AttentionEquation.parse("(b g) h (q r) (n k), k b f -> q b g f")
    assert equation.batch == ("b", "g")
    assert equation.batch_groups == (("b",), ("g",))
    assert equation.heads == ("h",)
    assert equation.rows == ("q",)
    assert equation.heads_in_rows == ("r",)
    assert equation.keys == ("n", "k")
    assert equation.free == ("f",)
    assert equation.labels == ("k", "b", "f")
    assert equation.result == ("q", "b", "g", "f")
    assert not equation.averages_heads_alone


@pytest.mark.parametrize(
    ("text", "heads_alone", "in_order"),
    [
        ("b h q k, b k -> b q", True, True),
        ("b h q k, k b -> b q", True, False),
        ("b h q k, b k -> q b", True, False),
        ("b q k, b k -> b q", False, True),
        ("h b q k, b k -> b q", False, True),
        ("(b h) q k, b k -> b q", False, True),
        ("b c h q k, b c k -> b c q", False, False),
    ],
)
def test_the_order_that_a_kernel_takes(text: str, heads_alone: bool, in_order: bool) -> None:
    equation = AttentionEquation.parse(text)
    assert equation.averages_heads_alone is heads_alone
    assert equation.is_in_order is in_order


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (MixingEquation, "q k, (b k) -> q", "the labels of 'q k, .* cannot have axes in parenth"),
        (MixingEquation, "q k, k -> (q)()", "the result of 'q k, .* cannot have axes in parenth"),
        (MixingEquation, "q (k k), k -> q", "'k' names two axes of one tensor in 'q \\(k k\\), k"),
        (MixingEquation, "q k, k k -> q", "'k' names two axes of one tensor"),
        (MixingEquation, "q k, k -> q q", "'q' names two axes of one tensor"),
        (
            MixingEquation,
            "q k, k -> q x",
            "no operand of 'q k, k -> q x' has the result's axis 'x'",
        ),
        (LinearMixingEquation, "q d, k d, (k) () -> q", "the labels of .* cannot have axes in par"),
        (LinearMixingEquation, "q d, k d, k -> x", "no operand of .* has the result's axis 'x'"),
        (LinearMixingEquation, "q d, d d, k -> q", "'d' names two axes of one tensor"),
        (ContractionEquation, "b (i j), i -> b", "the first operand of .* cannot have axes in"),
        (ContractionEquation, "b i, (i j) -> b", "the second operand of .* cannot have axes in"),
        (ContractionEquation, "b i i, i -> b", "'i' names two axes .*: diagonals are not followed"),
        (ContractionEquation, "b i, i -> ... b", "has the result's axis '...'"),
        (AttentionEquation, "q, k -> q k", "an attention map has axes of queries and of keys"),
        (AttentionEquation, "h q k, h k -> q", "mixes along the last axis of its map, .*'h'"),
        (AttentionEquation, "q k, q k -> q", "mixes along the last axis of its map, .*'q'"),
        (AttentionEquation, "q (r k), k -> q r", "mixes along the last axis of its map, .*'r'"),
    ],
)
def test_equations_that_mean_nothing_are_refused(kind: Any, text: str, message: str) -> None:
    with pytest.raises(NotationError, match=message):
        kind.parse(text)


def test_spare_names_are_the_letters_that_no_name_has() -> None:
    spare = SpareNames({"a", "head", "c"})
    assert [spare.fresh() for _ in range(3)] == ["b", "f", "g"]
