"""Checks of a mixer's settings and of the batch it is called with."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.mixing.pairing import Mode, Partner


def check_mode(mixer: str, mode: Mode, partner: Partner) -> None:
    """Check the settings `mode` and `partner`.

    Raises:
        LabelError: an unknown mode or partner, or pair mode with rolling.
    """
    for name, word, known in (
        ("mode", mode, get_args(Mode)),
        ("partner", partner, get_args(Partner)),
    ):
        if word not in known:
            raise LabelError(
                f"{mixer}: the {name} of a mixing strategy must be one of {', '.join(known)}, got "
                f"{word!r}."
            )
    if mode == "pair" and partner == "roll":
        raise LabelError(
            f"{mixer}: partner roll does not form pairs; in pair mode set partner to flip or "
            f"permutation, or set mode to batch or elem."
        )


def check_batch(mixer: str, images: Tensor, targets: Tensor, *, blends: bool = False) -> None:
    """Check a batch before it is mixed; with `blends`, images must be floating point.

    Raises:
        LabelError: images or targets have the wrong type, shape, dtype, batch size or device, or
            targets are negative.
    """
    for name, tensor in (("images", images), ("targets", targets)):
        if not isinstance(tensor, Tensor):
            raise LabelError(
                f"{mixer}: {name} must be a torch.Tensor, got {type(tensor).__name__}; "
                f"mix after the data loader's collate function."
            )
    if images.ndim != 4 or images.numel() == 0:
        raise LabelError(
            f"{mixer}: images must be (B, C, H, W) and not empty, got {tuple(images.shape)}; "
            f"mixing works on a whole batch."
        )
    if blends and not images.is_floating_point():
        raise LabelError(
            f"{mixer}: images must be floating point, got {images.dtype}, which cannot hold a "
            f"blend; convert them first, such as images.float() / 255."
        )
    if targets.shape != images.shape[:1]:
        raise LabelError(
            f"{mixer}: targets must be (B,) = ({images.shape[0]},), one class index an image, got "
            f"{tuple(targets.shape)}; {_advice(targets)}."
        )
    if targets.dtype == torch.bool or targets.is_floating_point() or targets.is_complex():
        raise LabelError(
            f"{mixer}: targets must be integer class indices, got {targets.dtype}; "
            f"convert them with targets.long()."
        )
    if targets.device != images.device:
        raise LabelError(
            f"{mixer}: targets are on {targets.device}, images on {images.device}; "
            f"move both to the same device."
        )
    negative = targets.long() < 0  # comparisons are not implemented for every unsigned type
    if negative.any():
        row = negative.tolist().index(True)
        raise LabelError(
            f"{mixer}: target {row} is {targets[row].item()}, but class indices start at 0; "
            f"remove images without a class before mixing."
        )


def _advice(targets: Tensor) -> str:
    """What to do about targets of another shape: indices, if each row has one class."""
    if targets.dim() != 2 or targets.shape[1] == 1:
        return "pass one integer for each image"
    if bool(((targets != 0).sum(1) == 1).all()):
        return "turn one-hot targets into indices with targets.argmax(1)"
    return (
        "images of several classes, or of shares of them, have no index: pass torch.arange(B) as "
        "targets; the classes of the mixed batch are then rows of your own targets"
    )
