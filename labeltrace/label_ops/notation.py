"""Axes by name: ``"(b h) q k, b k -> b q"``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Axes = tuple[tuple[str, ...], ...]
Plan = TypeVar("Plan")


def cache_unless_compiling(read: Callable[[str], Plan]) -> Callable[[str], Plan]:
    """Read each notation once, but for :func:`torch.compile`, which traces no caches."""
    known = functools.cache(read)

    @functools.wraps(read)
    def plan_of(notation: str) -> Plan:
        return read(notation) if torch.compiler.is_compiling() else known(notation)

    return plan_of


def parse_axes(text: str) -> Axes:
    """The names of each axis; those of an axis made of several factors are in parentheses."""
    axes: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            inside = []
        elif word == ")":
            axes.append(tuple(inside or ()))
            inside = None
        elif inside is not None:
            inside.append(word)
        else:
            axes.append((word,))
    return tuple(axes)


def split_shape(shape: Sequence[int], axes: Axes, sizes: dict[str, int]) -> list[int]:
    """The sizes of all names; one in each pair of parentheses follows from the others."""
    found: list[int] = []
    for axis, size in zip(axes, shape, strict=True):
        known = math.prod([sizes.get(name, 1) for name in axis])
        found.extend(sizes[name] if name in sizes else size // known for name in axis)
    return found
