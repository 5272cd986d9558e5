"""Photographs as model inputs: the two that scikit-learn ships, or files of the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labeltrace.errors import PhotographError
from labeltrace.extras import extra
from labeltrace.mixing import CutMix, MixedBatch

if TYPE_CHECKING:
    from PIL import Image

SAMPLE_NAMES = ("china", "flower")
MIXING_SEED = 41  # with this box, both sample photographs remain visible


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
        from PIL import Image
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
    with extra("demo"):
        from PIL import Image, ImageOps, UnidentifiedImageError
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


def mix_photographs(
    photographs: tuple[Photograph, Photograph], seed: int = MIXING_SEED
) -> MixedBatch:
    """Paste a box of the second photograph into the first by CutMix: always the same batch."""
    images = torch.stack([photograph.pixels for photograph in photographs])
    generator = torch.Generator().manual_seed(seed)
    partners = torch.tensor([0, 1])
    while True:
        batch = CutMix()(images, partners, generator=generator)
        swapped = batch.classes[0].tolist() == [0, 1]
        if swapped and 0 < batch.mixing_ratio[0, 0] < 1:  # half of the permutations swap nothing
            return MixedBatch(batch.images[:1], batch.labels[:1], batch.classes[:1])


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
    with extra("demo"):
        import numpy
        from PIL import Image, ImageOps
    height, width = (size, size) if isinstance(size, int) else size
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(numpy.array(fitted)).permute(2, 0, 1).float().div(255)
