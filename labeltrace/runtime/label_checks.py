"""Checks of a label image before the graph runs: one clear error for each fault."""

from __future__ import annotations

import torch
from torch import Tensor

from labeltrace.errors import LabelError

TOLERANCE = 1e-4


def check_label_image(labels: Tensor, image: Tensor, channel_dim: int) -> None:
    """Check that `labels` is a label image for `image`.

    Raises:
        LabelError: it is not a floating-point tensor, is on another device, has another batch,
            rank or size, or has entries that are negative or NaN, or do not sum to one over the
            sources; or the image is empty.
    """
    if not isinstance(labels, Tensor):
        raise LabelError(f"labels must be a tensor (B, K, *sizes), not {type(labels).__name__}")
    if not labels.is_floating_point():
        raise LabelError(
            f"labels have dtype {labels.dtype}; they are distributions over K sources and must be "
            "floating point: use a one-hot image over dimension 1 for hard labels"
        )
    if labels.device != image.device:
        raise LabelError(
            f"labels are on {labels.device}, the images on {image.device}; move them with "
            "labels.to(images.device)"
        )
    _check_shape(labels, image, channel_dim)
    _check_values(labels)


def _check_shape(labels: Tensor, image: Tensor, channel_dim: int) -> None:
    dim = channel_dim % image.dim()
    sizes = [size for axis, size in enumerate(image.shape) if axis not in (0, dim)]
    shape = tuple(labels.shape)
    if labels.dim() != image.dim():
        raise LabelError(
            f"labels have shape {shape}; for an input of shape {tuple(image.shape)} they must be "
            f"{_wanted(sizes)}, or have ones for the sizes"
        )
    if shape[0] != image.shape[0]:
        raise LabelError(f"labels have a batch of {shape[0]}, the input one of {image.shape[0]}")
    if 0 in image.shape:
        raise LabelError(
            f"the input has shape {tuple(image.shape)}: without an entry there is nothing to "
            "follow; leave empty batches out"
        )
    fits = all(given in (1, size) for given, size in zip(shape[2:], sizes, strict=True))
    if not fits or shape[1] == 0:
        raise LabelError(
            f"labels have shape {shape}; {_wanted(sizes)} fits the input, or ones for sizes"
        )


def _wanted(sizes: list[int]) -> str:
    """The shape as text, only for errors: code under `torch.compile` cannot print dynamic sizes."""
    return f"(B, K, {', '.join(map(str, sizes))})" if sizes else "(B, K)"


def _check_values(labels: Tensor) -> None:
    with torch.no_grad():
        sums = labels.sum(1, dtype=torch.float32)
        lowest, highest = sums.aminmax()
        in_range = (lowest >= 1 - TOLERANCE) & (highest <= 1 + TOLERANCE)
        sound = (labels.amin() >= 0) & in_range  # amin passes NaN on, which is not >= 0
    if (
        labels.device.type != "cpu" or torch.compiler.is_compiling()
    ):  # without waiting for the device
        torch._assert_async(sound, "labels must be non-negative and sum to one over dimension 1")
        return
    if bool(sound):
        return
    if bool(labels.isnan().any()):
        raise LabelError("labels have NaN entries")
    if bool((labels < 0).any()):
        raise LabelError(f"labels have negative entries, the smallest is {labels.min().item():.4g}")
    largest = (sums - 1).abs().max().item()
    if labels.dtype in (torch.float16, torch.bfloat16):
        raise LabelError(
            f"labels of dtype {labels.dtype} cannot sum to one closely enough: sums differ from "
            f"one by up to {largest:.4g}; keep label images in float32, also under autocast"
        )
    raise LabelError(
        "labels do not sum to one over dimension 1, the sources: sums differ from one by up to "
        f"{largest:.4g}; divide them by labels.sum(1, keepdim=True)"
    )
