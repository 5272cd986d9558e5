"""Arrays of small numbers as text: compressed bytes in base64."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy
from torch import Tensor

LEVELS = 255
"""The byte for a share of 1, or for the largest share of an image."""


@dataclass(frozen=True, slots=True)
class EncodedArray:
    """An array of bytes as text.

    Attributes:
        shape: shape of the array.
        data: the bytes in row-major order, compressed by zlib, in base64.
    """

    shape: tuple[int, ...]
    data: str


def encode(values: Tensor) -> EncodedArray:
    """Encode an array of bytes (uint8, any shape) as text."""
    found = numpy.ascontiguousarray(values.numpy())
    if found.dtype != numpy.uint8:
        raise TypeError(f"only uint8 is encoded, got {found.dtype}; convert shares with to_levels")
    data = base64.b64encode(zlib.compress(found.tobytes(), 9)).decode()
    return EncodedArray(tuple(found.shape), data)


def to_levels(shares: Tensor) -> Tensor:
    """Shares in [0, 1] as bytes, rounded to the nearest level."""
    return shares.clamp(0, 1).mul(LEVELS).round().byte()
