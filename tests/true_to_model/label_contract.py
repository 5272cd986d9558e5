"""What every label must be, and whether it is what a replica says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from tests.true_to_model.case import SOURCES, Case, Seen


def label_image(image: Tensor) -> Tensor:
    """A distribution over sources for each pixel, always the same for an image of this shape."""
    generator = torch.Generator().manual_seed(0)
    sizes = (image.shape[0], SOURCES, *image.shape[2:])
    labels = torch.rand(sizes, generator=generator).pow(3)
    return labels / labels.sum(1, keepdim=True)


def check_labels(case: Case, seen: Seen, labels: Any, path: str) -> None:
    outputs, spec = tree_flatten(seen.outputs)
    found = spec.flatten_up_to(labels)
    tensors = [index for index, output in enumerate(outputs) if isinstance(output, Tensor)]
    without = tuple(index for index in tensors if found[index] is None)
    assert without == case.unlabeled, f"{path}: outputs {without} have no label"
    for index, (output, label) in enumerate(zip(outputs, found, strict=True)):
        if label is not None:
            check_label(output, label, f"{path}, output {index}")
    if case.labels is not None:
        expected = spec.flatten_up_to(case.labels(seen))
        for index, (label, wanted) in enumerate(zip(found, expected, strict=True)):
            if isinstance(wanted, Tensor):
                assert label is not None and label.shape == wanted.shape, f"{path}, output {index}"
                torch.testing.assert_close(label, wanted, rtol=0, atol=2e-6)


def check_label(output: Tensor, label: Tensor, path: str) -> None:
    assert label.dtype == torch.float32 and not label.requires_grad, path
    dims = [dim for dim, size in enumerate(label.shape) if size == SOURCES]
    assert len(dims) == 1, f"{path}: {tuple(label.shape)}"
    others = [size for dim, size in enumerate(label.shape) if dim != dims[0]]
    without = [size for dim, size in enumerate(output.shape) if dim != dims[0]]
    assert others in (without, list(output.shape)), f"{path}: {tuple(label.shape)}"
    assert bool((label >= 0).all()), path
    sums = label.sum(dims[0])
    assert torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-5), path
