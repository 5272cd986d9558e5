"""The loss of eq. 12: its value, where its gradient goes, and what it refuses."""

import pytest
import torch

from labeltrace.errors import LabelError
from labeltrace.losses import soft_cross_entropy

SHAPES = [(3, 7), (3, 7, 5), (3, 7, 5, 2)]


def distributions(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).softmax(dim=1)


def random_logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_those_of_the_formula(shape):
    logits, targets = random_logits(*shape).requires_grad_(), distributions(*shape)
    loss = soft_cross_entropy(logits, targets)
    loss.backward()

    exponentials = logits.detach().exp()
    probabilities = exponentials / exponentials.sum(1, keepdim=True)
    count = logits.numel() // logits.shape[1]
    expected = -(targets * probabilities.log()).sum() / count
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(logits.grad, (probabilities - targets) / count)


def test_gradient_reaches_logits_alone():
    source = random_logits(3, 7).requires_grad_()
    targets = (2 * source).softmax(dim=1)
    soft_cross_entropy(source, targets).backward()

    constant = source.detach().clone().requires_grad_()
    soft_cross_entropy(constant, targets.detach()).backward()
    assert torch.equal(source.grad, constant.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_widened_to_float32(dtype):
    logits, targets = random_logits(3, 7).to(dtype), distributions(3, 7).to(dtype)
    loss = soft_cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    expected = soft_cross_entropy(logits.double(), targets.double())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def test_autocast_changes_nothing():
    logits, targets = random_logits(3, 7).float(), distributions(3, 7).float()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = soft_cross_entropy(logits, targets)
    assert torch.equal(under_autocast, soft_cross_entropy(logits, targets))


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (torch.zeros(7), torch.zeros(7), r"\(B, C\).*got \(7,\).*dimension 1"),
        (torch.zeros(0, 7), torch.zeros(0, 7), r"not empty, got \(0, 7\)"),
        (torch.zeros(3, 7), torch.zeros(7, 3), r"\(7, 3\).*\(3, 7\).*num_classes=7"),
        (
            torch.zeros(3, 7),
            torch.zeros(3, dtype=torch.long),
            r"\(3,\) and logits \(3, 7\) must have the same shape; make the targets with",
        ),
        (
            torch.zeros(3, 7),
            torch.zeros(3, 7).long(),
            r"soft_targets must be floating point, got torch.int64; .*distributions over classes",
        ),
        (torch.zeros(3, 7).long(), torch.zeros(3, 7), r"logits must be floating.*torch.int64"),
        (
            torch.zeros(3, 7),
            torch.zeros(3, 7, device="meta"),
            r"soft_targets are on meta, logits on cpu; move the targets with \.to\(",
        ),
    ],
)
def test_unusable_input_is_refused(logits, targets, words):
    with pytest.raises(LabelError, match=words):
        soft_cross_entropy(logits, targets)
