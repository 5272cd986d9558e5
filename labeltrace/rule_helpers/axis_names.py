"""The operands of a product, with their axes by letter as an equation names them."""

from __future__ import annotations

from collections.abc import Mapping

from labeltrace.flow import NamedOperand, Operand
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import Size, axis_size, channel
from labeltrace.rule_api.call import Shape


def axis_sizes(*operands: tuple[Names, Shape]) -> dict[str, Size]:
    """The size of each letter; an axis of size one is broadcast."""
    sizes: dict[str, Size] = {}
    for letters, shape in operands:
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes


def name_axes(operand: Operand, letters: Names, sizes: Mapping[str, Size]) -> NamedOperand:
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
