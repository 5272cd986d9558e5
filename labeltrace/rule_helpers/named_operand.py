"""Sides: the operands of a product with their axes by letter, as its index notation names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from labeltrace.flow import NamedOperand, Operand
from labeltrace.layout import axis_size, channel
from labeltrace.rule_api.call import Shape

Letters = tuple[str, ...]


def parse(notation: str, ranks: tuple[int, int], rank: int) -> tuple[Letters, Letters, Letters]:
    """The letters of both operands and of the result; ``...`` is spelled out.

    ``ranks`` are the operands' numbers of axes, ``rank`` the result's.
    """
    inputs, result = notation.split("->")
    texts = [text.split() for text in (*inputs.split(","), result)]
    spare = [letter for letter in ascii_lowercase if letter not in notation]
    widths = (*ranks, rank)
    most = (
        max(
            width - (len(text) - 1)
            for text, width in zip(texts, widths, strict=True)
            if "..." in text
        )
        if "..." in notation
        else 0
    )
    leading = spare[:most]
    parsed = [
        _expand_ellipsis(text, width, leading) for text, width in zip(texts, widths, strict=True)
    ]
    return parsed[0], parsed[1], parsed[2]


def _expand_ellipsis(text: Sequence[str], rank: int, leading: Sequence[str]) -> Letters:
    if "..." not in text:
        return tuple(text)
    index = text.index("...")
    missing = rank - (len(text) - 1)
    ellipsis = leading[len(leading) - missing :]
    return (*text[:index], *ellipsis, *text[index + 1 :])


def axis_sizes(*operands: tuple[Letters, Shape]) -> dict[str, int]:
    """The size behind each letter; an axis of size one is broadcast."""
    sizes: dict[str, int] = {}
    for letters, shape in operands:
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes


def name_axes(operand: Operand, letters: Letters, sizes: Mapping[str, int]) -> NamedOperand:
    """An operand's axes by letter; all axes of a constant are channels."""
    if operand.layout is None:
        present = {
            letter: channel(size)
            for letter, size in zip(letters, operand.shape, strict=True)
            if size == sizes[letter]
        }
        return NamedOperand(operand, letters, present)
    axes = {
        letter: axis
        for letter, axis in zip(letters, operand.layout.axes, strict=True)
        if axis_size(axis) == sizes[letter]
    }
    return NamedOperand(operand, letters, axes)
