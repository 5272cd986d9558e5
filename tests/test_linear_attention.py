"""Linear attention mixes as the product of its feature maps would, in linear time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import labeltrace

HEADS, WIDTH, ROWS, COLUMNS = 2, 3, 5, 7


class LinearAttention(nn.Module):
    """``phi(q) (phi(k)^T v) / (phi(q) phi(k)^T 1)`` in several spellings."""

    def __init__(self, spelling: str, phi: str) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(3, 3 * HEADS * WIDTH, 1)
        self.spelling, self.phi = spelling, phi

    def features(self, x: Tensor) -> Tensor:
        return {"relu": torch.relu, "exp": torch.exp, "signed": torch.nn.functional.elu}[self.phi](
            x
        )

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(x).flatten(2).transpose(1, 2)  # (B, N, 3 h d)
        q, k, v = qkv.reshape(x.shape[0], -1, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
        return self.features(q), self.features(k), v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.projected(x)
        if self.spelling == "keys first":
            mixed = q @ (k.transpose(-2, -1) @ v)
        elif self.spelling == "values first":
            mixed = ((v.transpose(-2, -1) @ k) @ q.transpose(-2, -1)).transpose(-2, -1)
        elif self.spelling == "scaled":
            mixed = (q * 0.5) @ ((k.mT @ v).contiguous() / 3)
        elif self.spelling == "einsum":
            context = torch.einsum("bhnd,bhne->bhde", k, v)
            mixed = torch.einsum("bhnd,bhde->bhne", q, context)
        elif self.spelling == "folded heads":
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
            mixed = torch.bmm(q, torch.bmm(k.transpose(1, 2), v)).unflatten(0, (-1, HEADS))
        elif self.spelling == "summed along":
            v = nn.functional.pad(v, (0, 1), value=1.0)
            mixed = q @ (k.mT @ v)
            mixed = mixed[..., :-1] / (mixed[..., -1:] + 1e-6)
        return mixed.transpose(1, 2).flatten(2)


SPELLINGS = ["keys first", "values first", "scaled", "einsum", "folded heads", "summed along"]


def label_image(batch: int) -> Tensor:
    labels = torch.rand(batch, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    return labels / labels.sum(1, keepdim=True)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("phi", ["relu", "exp", "signed"])
def test_labels_mix_by_the_product_of_the_features(spelling: str, phi: str) -> None:
    torch.manual_seed(2)
    model, image, labels = LinearAttention(spelling, phi), torch.randn(4, 3, 5, 7), label_image(4)
    aligned = labeltrace.align(model)
    outputs, result = aligned(image, labels)
    assert torch.equal(outputs, model(image))
    q, k, _ = (t.double().abs() for t in model.projected(image))
    matrices = q @ k.mT
    matrices = (matrices / matrices.sum(-1, keepdim=True)).nan_to_num(1 / (ROWS * COLUMNS))
    expected = matrices.mean(1) @ labels.flatten(2).mT.double()
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    steps = [n for n in aligned.trace(image).nodes if str(n.operation) == "spatial mixing"]
    assert len(steps) == 1
    assert steps[0].exact == (phi != "signed")


def test_rows_without_a_feature_mix_equally() -> None:
    model, image, labels = (
        LinearAttention("keys first", "relu"),
        torch.randn(2, 3, 5, 7),
        label_image(2),
    )
    with torch.no_grad():
        model.qkv.weight.zero_()
        model.qkv.bias.fill_(-1)
    result = labeltrace.align(model)(image, labels)[1]
    mean = labels.flatten(2).mean(2)[:, None].expand_as(result)
    torch.testing.assert_close(result, mean)


def test_cross_covariance_attention_mixes_channels() -> None:
    class CrossCovariance(LinearAttention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.projected(x)
            weights = (q.mT @ k).softmax(-1)
            return (weights @ v.mT).mT.transpose(1, 2).flatten(2)

    model, image, labels = CrossCovariance("", "signed"), torch.randn(2, 3, 5, 7), label_image(2)
    aligned = labeltrace.align(model)
    result = aligned(image, labels)[1]
    assert torch.equal(result, labels.flatten(2).mT)
    assert "spatial mixing" not in aligned.trace(image).counts()


def test_keys_times_values_that_meet_no_queries_are_refused() -> None:
    class Lost(LinearAttention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.projected(x)
            return k.mT @ v + q.mean(2, keepdim=True)

    with pytest.raises(labeltrace.LayoutError, match="keys times values"):
        labeltrace.align(Lost("", "relu"), torch.randn(2, 3, 5, 7))


def test_features_gathered_over_the_tokens_are_approximate() -> None:
    """Keys that a softmax normalises over the tokens gather labels before queries choose."""

    class FactorAttention(LinearAttention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.projected(x)
            return (q @ (k.softmax(2).mT @ v)).transpose(1, 2).flatten(2)

    model, image, labels = FactorAttention("", "signed"), torch.randn(2, 3, 5, 7), label_image(2)
    aligned = labeltrace.align(model)
    result = aligned(image, labels)[1]
    q, k, _ = (t.double() for t in model.projected(image))
    gathered = k.softmax(2).mT.mean(1) @ labels.flatten(2).mT.double()
    chosen = (q.abs() / q.abs().sum(-1, keepdim=True)).mean(1) @ gathered
    torch.testing.assert_close(result.double(), chosen, atol=1e-5, rtol=0)
    (node,) = aligned.trace(image).approximate
    assert "one after the other" in node.approximation


def test_learned_queries_are_exact() -> None:
    """Latent tokens that a softmax over the image's tokens fills are positions of their own."""

    class Latents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).mT
            return (self.latents @ tokens.mT).softmax(-1) @ tokens

    model, image, labels = Latents(), torch.randn(2, 3, 5, 7), label_image(2)
    aligned = labeltrace.align(model)
    weights = (model.latents @ image.flatten(2)).softmax(-1)
    expected = weights @ labels.flatten(2).mT
    torch.testing.assert_close(aligned(image, labels)[1], expected.detach())
    assert not aligned.trace(image).approximate
