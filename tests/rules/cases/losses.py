"""Losses inside a model: every cell that takes part counts the same."""

import torch

from tests.rules.cases.case import RuleCase, values
from tests.rules.cases.expected_labels import alike, by_contract, stays

ATEN = "torch.ops.aten."
TARGET = {"t": values(2, 3, 5, 7).sigmoid()}
CLASSES = {"t": torch.arange(70).view(2, 5, 7) % 3}
OF_VALUES = {
    "aten.binary_cross_entropy": f"{ATEN}binary_cross_entropy(x.sigmoid(), self.t)",
    "aten.binary_cross_entropy_with_logits": f"{ATEN}binary_cross_entropy_with_logits(x, self.t)",
    "aten.huber_loss": f"{ATEN}huber_loss(x, self.t)",
    "aten.l1_loss": f"{ATEN}l1_loss(x, self.t)",
    "aten.mse_loss": f"{ATEN}mse_loss(x, self.t, 2)",
    "aten.smooth_l1_loss": f"{ATEN}smooth_l1_loss(x, self.t)",
    "aten.soft_margin_loss": f"{ATEN}soft_margin_loss(x, self.t)",
}
CASES = (
    *(RuleCase(name, code, alike, TARGET) for name, code in OF_VALUES.items()),
    RuleCase("aten.mse_loss", f"{ATEN}mse_loss(x, self.t, 0)", stays, TARGET),
    RuleCase("aten.cross_entropy_loss", f"{ATEN}cross_entropy_loss(x, self.t)", alike, CLASSES),
    RuleCase(
        "aten.cross_entropy_loss",
        f"{ATEN}cross_entropy_loss(x, self.t, None, 0)[:, None].expand(-1, 3, -1, -1)",
        by_contract,
        CLASSES,
    ),
    RuleCase("aten.nll_loss_nd", f"{ATEN}nll_loss_nd(x.log_softmax(1), self.t)", alike, CLASSES),
    RuleCase("aten.nll_loss2d", f"{ATEN}nll_loss2d(x.log_softmax(1), self.t)", alike, CLASSES),
    RuleCase(
        "aten.nll_loss",
        f"{ATEN}nll_loss(x[:, :, 0, 0].log_softmax(1), self.t)",
        alike,
        {"t": torch.tensor([2, 0])},
    ),
)
