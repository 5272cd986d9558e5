"""Photographs as model inputs: the two that scikit-learn ships, or files of the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from labeltrace.errors import LabelTraceError

SAMPLE_NAMES = ("china", "flower")


class PhotographError(LabelTraceError):
    """A photograph is missing or cannot be read."""


@dataclass(frozen=True, eq=False, slots=True)
class Photograph:
    """A photograph.

    Attributes:
        name: its name in tables and figures.
        pixels: (3, height, width) float32 in [0, 1], RGB.
    """

    name: str
    pixels: Tensor


def sample_photographs(size: int | tuple[int, int] = 224) -> tuple[Photograph, Photograph]:
    """The two photographs that scikit-learn ships: a Chinese temple and a flower.

    Args:
        size: height and width in pixels; one number for both.

    Raises:
        PhotographError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_sample_image
    except ModuleNotFoundError as error:
        raise PhotographError(
            f"the sample photographs come with scikit-learn, which is not installed "
            f"({error}); install it with `pip install scikit-learn` or "
            f"`pip install 'labeltrace[demo]'`, or pass two images of your own"
        ) from error
    first, second = (
        Photograph(name, _resize_and_crop(Image.fromarray(load_sample_image(f"{name}.jpg")), size))
        for name in SAMPLE_NAMES
    )
    return first, second


def read_photograph(path: str | Path, size: int | tuple[int, int] = 224) -> Photograph:
    """Read an image file of any format that Pillow supports; resize it and crop its center.

    Args:
        path: the file; its name without the suffix becomes the photograph's name.
        size: height and width in pixels; one number for both.

    Raises:
        PhotographError: there is no such file, or it is not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError as error:
        raise PhotographError(
            f"{path} is not an image in a format that Pillow reads; convert it to PNG or JPEG"
        ) from error
    except OSError as error:
        raise PhotographError(
            f"{path} cannot be read: {error.strerror or error}; give the path of an image file"
        ) from error
    return Photograph(path.stem, _resize_and_crop(upright, size))


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalize pixels as in a model's training: `(pixels - mean) / std`, channel by channel.

    Args:
        pixels: (..., 3, H, W) in [0, 1].
        mean: one number for each channel.
        std: one number for each channel.
    """
    return (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(std)[:, None, None]


def _resize_and_crop(image: Image.Image, size: int | tuple[int, int]) -> Tensor:
    """The center of an image at the given size: (3, height, width) float32 in [0, 1]."""
    height, width = (size, size) if isinstance(size, int) else size
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(numpy.array(fitted)).permute(2, 0, 1).float().div(255)
