"""Training and validation images, from a folder or from scikit-learn's digits.

A file that cannot be read becomes a value, `Unreadable`, so that the path and the reason leave a
worker process intact. An exception would lose them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, ImageFolder

from labeltrace.errors import TrainingError

TRAINING_FOLDER = "train"
VALIDATION_FOLDER = "val"
CIFAR = {CIFAR10.base_folder: CIFAR10, CIFAR100.base_folder: CIFAR100}
READING_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
HELD_OUT_DIGITS = 360


@dataclass(frozen=True)
class Unreadable:
    """An image file that cannot be read, with the reason."""

    path: str
    reason: str

    def error(self) -> TrainingError:
        """The error to raise."""
        return TrainingError(
            f"the image {self.path} cannot be read: {self.reason}; repair the file or remove it"
        )


Sample = tuple[Image.Image | Unreadable, int]


class Samples(Protocol):
    """Images with their class indices, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, eq=False)
class Images:
    """Training and validation images.

    Attributes:
        name: a description for people.
        training: pairs (image or `Unreadable`, class index), by index.
        validation: the same for the validation images.
        classes: names of the classes, in the order of their indices.
    """

    name: str
    training: Samples
    validation: Samples
    classes: tuple[str, ...]


def read_images(folder: str | None) -> Images:
    """Open the training and validation images.

    Args:
        folder: see `DataSettings.folder`; None for scikit-learn's digits.

    Raises:
        TrainingError: there is no such folder, it holds no images, a class has none, or there is
            only one; scikit-learn is missing.
    """
    if folder is None:
        return _load_digits()
    root = Path(folder)
    for base, dataset in CIFAR.items():
        if (root / base).is_dir():
            return _read_cifar(root, dataset)
    training, validation = (
        _read_class_folders(root / n) for n in (TRAINING_FOLDER, VALIDATION_FOLDER)
    )
    if training.classes != validation.classes:
        differing = sorted(set(training.classes) ^ set(validation.classes))
        raise TrainingError(
            f"{root}: {TRAINING_FOLDER}/ and {VALIDATION_FOLDER}/ must have the same classes; add "
            f"or remove the folders that only one of them has: {_join_names(differing)}"
        )
    if len(training.classes) < 2:
        raise TrainingError(
            f"{root / TRAINING_FOLDER} has one class, {training.classes[0]!r}; a classifier needs "
            f"at least two, each a folder of images"
        )
    return Images(str(root), training, validation, tuple(training.classes))


def read_image(path: str) -> Image.Image | Unreadable:
    """Read an image file as RGB with 8 bits a channel."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except READING_ERRORS as error:
        if not Path(path).is_file() or Path(path).stat().st_size:
            return Unreadable(path, f"{type(error).__name__}: {error}")
        return Unreadable(path, "the file is empty")


def _read_class_folders(folder: Path) -> Any:
    if not folder.is_dir():
        raise TrainingError(
            f"there is no folder {folder}; a data folder holds {TRAINING_FOLDER}/ and "
            f"{VALIDATION_FOLDER}/, and in each a folder of images for every class"
        )
    try:
        return ImageFolder(str(folder), loader=read_image)
    except FileNotFoundError as error:  # no classes, or classes without images
        raise TrainingError(
            f"{folder}: {error}; put images into a folder for each class"
        ) from error


def _read_cifar(root: Path, dataset: Any) -> Images:
    try:
        training, validation = (dataset(str(root), train=train) for train in (True, False))
    except (RuntimeError, *READING_ERRORS) as error:
        raise TrainingError(
            f"{root}: {dataset.__name__} cannot be read: {error}; download it again"
        ) from error
    return Images(f"{dataset.__name__} in {root}", training, validation, tuple(training.classes))


def _join_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


# Digits. ------------------------------------------------------------------------------------------


class _Digits:
    """Digits of 8 × 8 pixels; `pixels` is (N, 8, 8, 3) uint8."""

    def __init__(self, pixels: Any, classes: Any) -> None:
        self.pixels, self.targets = pixels, classes.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        return Image.fromarray(self.pixels[index]), self.targets[index]


def _load_digits() -> Images:
    """1437 digits to train on and 360 to validate with; the split is always the same."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise TrainingError(
            "training without --data uses scikit-learn's digits; pip install scikit-learn (or "
            "pip install 'labeltrace[train]'), or give a folder of images with --data"
        ) from error
    digits = load_digits()
    gray = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=-1)
    parts = train_test_split(
        *(pixels, digits.target), test_size=HELD_OUT_DIGITS, stratify=digits.target, random_state=0
    )
    training, validation, training_classes, validation_classes = parts
    return Images(
        "scikit-learn's digits",
        _Digits(training, training_classes),
        _Digits(validation, validation_classes),
        tuple(map(str, digits.target_names)),
    )
