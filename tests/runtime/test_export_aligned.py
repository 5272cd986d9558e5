"""`torch.export.export(aligned)`: labels in an exported program."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim, export

import labeltrace
from labeltrace import CaptureError
from tests.helpers.compiled_models import inputs, small

BOTH_STRICT = pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])


@BOTH_STRICT
@pytest.mark.parametrize("captured_by", ["example", "call"])
def test_an_exported_program_has_the_labels_of_any_batch(strict: bool, captured_by: str) -> None:
    model = small().eval()
    images, labels = inputs(3)
    aligned = labeltrace.align(model, images if captured_by == "example" else None)
    if captured_by == "call":
        aligned(images, labels)
    batch = {0: Dim.DYNAMIC}
    program = export(aligned, (images, labels), dynamic_shapes=(batch, batch), strict=strict)
    for size in (2, 5):
        images, labels = inputs(size)
        torch.testing.assert_close(
            program.module()(images, labels), aligned(images, labels), rtol=0, atol=1e-6
        )


@BOTH_STRICT
@pytest.mark.parametrize("model", [small(), nn.Conv2d(3, 5, 3)], ids=["small", "one layer"])
def test_an_export_before_any_capture_says_what_to_do(model: nn.Module, strict: bool) -> None:
    with pytest.raises(CaptureError, match="call the aligned model once with images and labels"):
        export(labeltrace.align(model), inputs(3), strict=strict)
