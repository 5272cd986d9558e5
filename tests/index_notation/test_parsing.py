"""The text of index notation: what is read, and what errors say about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrace.errors import LabelTraceError, NotationError
from labeltrace.index_notation.parsing import Axes, axes_text, parse_equation

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,3}", fullmatch=True)
AXES = st.lists(st.lists(NAMES, max_size=3).map(tuple), max_size=4).map(tuple)


@given(st.lists(AXES, min_size=1, max_size=3), AXES)
def test_axes_as_text_are_read_again(operands: list[Axes], result: Axes) -> None:
    text = f"{', '.join(map(axes_text, operands))} -> {axes_text(result)}"
    assert parse_equation(text, len(operands)) == (*operands, result)


@pytest.mark.parametrize(
    ("text", "operands", "axes"),
    [
        ("b h q k,b k->b q", 2, ("b h q k", "b k", "b q")),
        ("(b h)q k , b k -> b q ", 2, ("(b h) q k", "b k", "b q")),
        ("i, ->", 2, ("i", "", "")),
        ("() b -> b", 1, ("() b", "b")),
        ("q, k, n -> ( q )", 3, ("q", "k", "n", "q")),
    ],
)
def test_spaces_between_signs_are_free(text: str, operands: int, axes: tuple[str, ...]) -> None:
    assert tuple(map(axes_text, parse_equation(text, operands))) == axes


def test_an_ellipsis_is_an_axis_where_it_is_asked_for() -> None:
    assert parse_equation("... i -> ...", 1, ellipsis=True) == ((("...",), ("i",)), (("...",),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b k", "2 operands, '->' and a result are expected, at character 3 of"),
        ("b k -> b", "2 operands, '->' and a result are expected, at character 4 of"),
        ("b, k, b -> k", "2 operands, '->' and a result are expected, at character 4 of"),
        ("b, k -> k -> b", "2 operands, '->' and a result are expected, at character 10 of"),
        ("b, k -> k, b", "2 operands, '->' and a result are expected, at character 9 of"),
        ("b (h q, k -> b", "a parenthesis is not closed, at character 6 of"),
        ("b (h (q) k), k -> b", "'(' has no partner, at character 5 of"),
        ("b h) q, k -> b", "')' has no partner, at character 3 of"),
        ("b, k -> b)", "')' has no partner, at character 9 of"),
        ("b (... k), k -> b", "'...' cannot be the name of an axis, at character 3 of"),
        ("b, k -> ...", "'...' cannot be the name of an axis, at character 8 of"),
        ("b 3, k -> b", "'3' cannot be the name of an axis, at character 2 of"),
        ("b - > c, d -> b", "'-' cannot be the name of an axis, at character 2 of"),
    ],
)
def test_errors_quote_the_text_and_say_where_it_goes_wrong(text: str, message: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse_equation(text, 2)
    assert str(caught.value) == f"{message} the index notation {text!r}"


def test_an_ellipsis_is_never_in_parentheses() -> None:
    with pytest.raises(NotationError, match="cannot be the name of an axis, at character 1"):
        parse_equation("(... i) -> i", 1, ellipsis=True)


def test_one_operand_is_counted_in_the_singular() -> None:
    with pytest.raises(NotationError, match="one operand, '->' and a result are expected"):
        parse_equation("a, b -> c", 1)


def test_the_error_is_one_of_the_library_and_a_value_error() -> None:
    assert issubclass(NotationError, LabelTraceError)
    assert issubclass(NotationError, ValueError)
