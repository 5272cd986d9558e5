"""Arrays of small numbers as text: deflated bytes in base64."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy
from torch import Tensor

LEVELS = 255
"""What a share of one, or the largest one of an image, is as a byte."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An array of bytes.

    Attributes:
        shape: its sizes.
        data: the bytes in row-major order, through zlib, in base64.
    """

    shape: tuple[int, ...]
    data: str


def packed(values: Tensor) -> Packed:
    """An array of bytes (uint8, any shape) as text."""
    found = numpy.ascontiguousarray(values.numpy())
    if found.dtype != numpy.uint8:
        raise TypeError(f"bytes are packed, not {found.dtype}")
    data = base64.b64encode(zlib.compress(found.tobytes(), 9)).decode()
    return Packed(tuple(found.shape), data)


def in_levels(shares: Tensor) -> Tensor:
    """Shares in [0, 1] as bytes, to the nearest level."""
    return shares.clamp(0, 1).mul(LEVELS).round().byte()
