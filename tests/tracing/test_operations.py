"""What a step is called in Table 10, and whether it says that it is approximate."""

from __future__ import annotations

import pytest
import torch

import labeltrace
from labeltrace.rule_helpers.product_flows import TWO_STEP_ATTENTION
from labeltrace.tracing.trace import Trace
from tests.helpers.code_module import from_expression


def traced(code: str, *shape: int) -> Trace:
    return labeltrace.trace(from_expression(code).eval(), torch.randn(shape or (2, 3, 5, 7)))


LAST = {
    # Tiles are laid side by side, windows over one another.
    "F.fold(F.unfold(x, (1, 7), stride=(1, 7)), (5, 7), (1, 7), stride=(1, 7))": "relayout",
    "F.fold(F.unfold(x, 2), (5, 7), 2)": "spatial aggregation",
    "F.fold(F.unfold(x[..., :4, :6], 2, stride=2), (5, 7), 2, stride=2, dilation=(2, 1))": (
        "spatial aggregation"
    ),
    "F.fold(F.unfold(x[..., :4, :6], 2, stride=2), (3, 5), 2, stride=2, padding=1)": (
        "spatial aggregation"
    ),
    # An axis of channels is moved, or gone.
    "torch.einsum('bchw->bhwc', x)": "relayout",
    "torch.einsum('bchw->bhw', x)": "channel mixing",
    "torch.einsum('bchw->bch', x)": "spatial aggregation",
    # Channels of one label are joined, or such of several.
    "torch.cat([x, x * 2], 1)": "relayout",
    "torch.cat([x, x.roll(1, 2)], 1)": "spatial aggregation",
}


@pytest.mark.parametrize("code", LAST)
def test_the_last_step(code: str) -> None:
    nodes = [node for node in traced(code).nodes if node.operation != "constant"]
    assert str(nodes[-1].operation) == LAST[code]


# (B, tokens, features), and a softmax of keys over the tokens: rows are features.
CONTEXT = "x.flatten(2).softmax(2) @ x.flatten(2).mT"
BETWEEN = {
    "a sum": "context + context.flip(1)",
    "a part": "context[:, :2]",
    "a part of a sum, moved": "(context + context.flip(1))[:, :2].flip(1).contiguous()",
    "a layer": "(context @ torch.eye(3)).flip(1) + context",
}


@pytest.mark.parametrize("between", BETWEEN)
def test_features_that_were_gathered_stay_features(between: str) -> None:
    """Two mixings are approximate where what stands between them keeps them apart."""
    chosen = f"(lambda context: {BETWEEN[between]})({CONTEXT})"
    code = (
        f"(lambda context: x.flatten(2).mT.softmax(2)[..., :context.shape[1]] @ context)({chosen})"
    )
    approximate = [node.approximation for node in traced(code).approximate]
    assert approximate == [TWO_STEP_ATTENTION]
