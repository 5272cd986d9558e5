"""Detectors of torchvision, whole, in both modes: boxes, branches on values and all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torchvision.models import detection

import labeltrace

SMALL = {"weights": None, "weights_backbone": None, "num_classes": 5}
SIZES = {"min_size": 64, "max_size": 96}
MODELS = {
    "faster": lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**SMALL, **SIZES),
    "mask": lambda: detection.maskrcnn_resnet50_fpn(
        **SMALL, **SIZES, rpn_post_nms_top_n_train=11, rpn_post_nms_top_n_test=11
    ),
    "ssd": lambda: detection.ssdlite320_mobilenet_v3_large(**SMALL),
}


class OfBatch(nn.Module):
    """A detector that takes its images as one batch."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.detector = MODELS[name]()

    def forward(self, x: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        return self.detector(list(x), targets)


def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[4.0, 5.0, 40.0, 50.0], [10.0, 10.0, 70.0, 60.0]])
    masks = torch.ones(2, 64, 80, dtype=torch.uint8)
    return [{"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks} for _ in range(2)]


def halves() -> Tensor:
    """Image 0 is all of source 0; of image 1 the left half is of source 1, the rest of source 2."""
    labels = torch.zeros(2, 3, 64, 80)
    labels[0, 0] = labels[1, 1, :, :40] = labels[1, 2, :, 40:] = 1.0
    return labels


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("faster", False),
        ("faster", True),
        ("mask", True),
        ("ssd", False),
        ("ssd", True),
    ],
)
def test_labels_follow_the_run(name: str, training: bool) -> None:
    model = OfBatch(name).train(training)
    aligned = labeltrace.align(model, engine="recorded")
    images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    given = (targets(),) if training else (None,)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(2)
    outputs, labels = aligned(images, halves(), *given)
    model.load_state_dict(state)
    torch.manual_seed(2)
    leaves, _ = tree_flatten(outputs)
    plain, _ = tree_flatten(model(images, *given))
    found, _ = tree_flatten(labels, is_leaf=lambda leaf: leaf is None)
    for output, expected, label in zip(leaves, plain, found, strict=True):
        assert torch.equal(output, expected)
        if not output.is_floating_point():
            assert label is None  # class numbers
            continue
        torch.testing.assert_close(label.sum(-1), torch.ones(label.shape[:-1]))
        assert bool((label >= 0).all())


def test_boxes_belong_to_their_image() -> None:
    model = OfBatch("faster").eval()
    model.detector.roi_heads.score_thresh = 0.0
    images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    _, labels = labeltrace.align(model, engine="recorded")(images, halves())
    first, second = (image["boxes"] for image in labels)
    assert len(first) > 0 and len(second) > 0
    assert torch.equal(first, torch.tensor([1.0, 0.0, 0.0]).expand_as(first))
    assert bool((second[:, 0] == 0).all()) and bool((second[:, 1:] > 0).any(0).all())
