"""Boxes on a map: each operator's own matrix, or every cell that can change a maximum."""

import torch
import torchvision  # noqa: F401, for its operators
from torch import Tensor

from tests.rules.cases.case import RuleCase, Truth
from tests.rules.cases.expected_labels import mixes, no_label, reached

OPS = "torch.ops.torchvision."
BOXES = torch.tensor(
    [[0, 1.3, 0.2, 9.1, 7.7], [1, 0.0, 0.0, 13.0, 9.0], [1, 5.5, 2.0, 8.0, 3.0], [0, 4, 4, 20, 20]]
)
INSIDE = torch.tensor([[1, 1.3, 0.2, 7.1, 5.7], [0, 5.5, 2.0, 8.0, 3.0], [1, 0.0, 1.0, 9.0, 6.0]])
"""Boxes that do not reach the last row or column, where `ps_roi_pool` and its gradient differ."""
PER_BIN = {"shape": (2, 12, 5, 7)}


def seen(truth: Truth) -> Truth:
    """The truth, and the prior of a box's image in the bins that see nothing."""

    def found(case: RuleCase) -> list[Tensor | None]:
        rows = [one.clone() for one in truth(case) if one is not None]
        for one in rows:
            for box, image in zip(one, case.parts["b"][:, 0].long().tolist(), strict=True):
                box[box.isnan().any(-1)] = case.prior(image)
        return list(rows)

    return found


CASES = (
    RuleCase(
        "torchvision.roi_align",
        f"{OPS}roi_align(x, self.b, 0.5, 2, 3, 2, True)",
        seen(mixes()),
        {"b": BOXES},
    ),
    RuleCase(
        "torchvision.roi_align",
        f"{OPS}roi_align(x, self.b, 1.0, 3, 2, -1, False)",
        seen(mixes()),
        {"b": BOXES[:3]},
    ),
    RuleCase(
        "torchvision.roi_align",
        f"{OPS}roi_align(x.mT, self.b, 0.5, 2, 2, 0, False)",
        seen(mixes()),
        {"b": BOXES[:3]},
    ),
    RuleCase(
        "torchvision.roi_pool",
        f"{OPS}roi_pool(x, self.b, 0.5, 2, 3)[0]",
        seen(reached()),
        {"b": BOXES},
        approximate=True,
    ),
    RuleCase(
        "torchvision.ps_roi_align",
        f"{OPS}ps_roi_align(x, self.b, 0.5, 2, 3, 2)[0]",
        seen(mixes()),
        {"b": BOXES[:3]},
        **PER_BIN,
    ),
    RuleCase(
        "torchvision.ps_roi_pool",
        f"{OPS}ps_roi_pool(x, self.b, 0.5, 2, 3)[0]",
        seen(mixes()),
        {"b": INSIDE},
        **PER_BIN,
    ),
    RuleCase(
        "torchvision.nms",
        f"{OPS}nms(torch.cat([x[0, :2, :, 0], x[0, :2, :, 0] + 1]).mT, x[0, 0, :, 0], 0.5)",
        no_label,
        recorded=True,
    ),
)
