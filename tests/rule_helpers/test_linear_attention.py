"""Linear attention mixes as the product of its feature maps would, in linear time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace

HEADS, WIDTH, ROWS, COLUMNS = 2, 3, 5, 7


PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "exp": torch.exp,
    "shifted": lambda x: F.dropout(F.elu(x) + 1, 0.2, training=False),
    "squared": lambda x: (x - 1) ** 2,
    "scaled": lambda x: (3 - x.tanh()).clamp(min=0.5) / 7,
    "signed": F.elu,
    "shifted too little": lambda x: F.elu(x, alpha=2) + 1,
    "turned round": lambda x: -(F.elu(x) + 1),
}
SIGNED = {"signed", "shifted too little", "turned round"}


class LinearAttention(nn.Module):
    """``phi(q) (phi(k)^T v) / (phi(q) phi(k)^T 1)`` in several spellings."""

    def __init__(self, spelling: str, phi: str) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(3, 3 * HEADS * WIDTH, 1)
        self.spelling, self.phi = spelling, phi

    def features(self, x: Tensor) -> Tensor:
        return PHI[self.phi](x)

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
        elif self.spelling in NORMALISERS:
            mixed = NORMALISERS[self.spelling](q, k, q @ (k.mT @ v))
        return mixed.transpose(1, 2).flatten(2)


Normalizer = Callable[[Tensor, Tensor, Tensor], Tensor]
NORMALISERS: dict[str, Normalizer] = {
    "divided by a product": lambda q, k, mixed: mixed / (q @ k.sum(2).unsqueeze(-1) + 1e-6),
    "divided by an einsum": lambda q, k, mixed: (
        mixed / torch.einsum("bhnd,bhd->bhn", q, k.sum(-2))[..., None].clamp(min=1e-6)
    ),
    "divided by a sum": lambda q, k, mixed: mixed / (1e-6 + (q * k.sum(2, True)).sum(-1, True)),
    "times an inverse": lambda q, k, mixed: mixed * (1 / (q @ k.mean(2, True).mT + 1e-6)),
}
SPELLINGS = [
    *("keys first", "values first", "scaled", "einsum", "folded heads", "summed along"),
    *NORMALISERS,
]


def label_image(batch: int) -> Tensor:
    labels = torch.rand(batch, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    return labels / labels.sum(1, keepdim=True)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("phi", PHI)
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
    assert steps[0].exact == (phi not in SIGNED)


def test_keys_and_values_may_come_from_elsewhere() -> None:
    class Pooled(LinearAttention):
        def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            keys, values = (F.avg_pool2d(x, size) for size in ((1, 7), (5, 1)))
            return tuple(t.flatten(2).mT.relu() for t in (x, x.relu() + 0.1 * keys, values + keys))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.parts(x)
            return q @ (k.mT @ v)

    model, image, labels = Pooled("", "relu"), torch.randn(2, 3, 5, 7), label_image(2)
    result = labeltrace.align(model)(image, labels)[1]
    q, k, _ = (t.double() for t in model.parts(image))
    matrix = q @ k.mT
    matrix = (matrix / matrix.sum(-1, keepdim=True)).nan_to_num(1 / (ROWS * COLUMNS))
    along = (labels.mean(3, keepdim=True) + labels.mean(2, keepdim=True)) / 2
    expected = matrix @ along.flatten(2).mT.double()
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)


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


class Shifted(LinearAttention):
    """Keys times values, to which a stream is added."""

    queried = False

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.projected(x)
        shifted = k.mT @ v + q.mean(2, keepdim=True)
        return q @ shifted if self.queried else shifted


def test_keys_times_values_that_meet_no_queries_are_content() -> None:
    image, labels = torch.randn(2, 3, 5, 7), label_image(2)
    result = labeltrace.align(Shifted("", "relu"))(image, labels)[1]
    assert result.shape[0] == 2
    sources = result.movedim(-1, 1).flatten(2)
    torch.testing.assert_close(sources, labels.flatten(2).mean(2, keepdim=True).expand_as(sources))


def test_keys_times_values_that_are_shifted_before_queries_are_refused() -> None:
    class Lost(Shifted):
        queried = True

    with pytest.raises(labeltrace.LayoutError, match="keys times values"):
        labeltrace.align(Lost("", "relu"), torch.randn(2, 3, 5, 7))


class FactorAttention(LinearAttention):
    """Keys that a softmax normalizes over the tokens gather values before queries choose."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(x).flatten(2).mT.reshape(x.shape[0], -1, 3, HEADS, WIDTH)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.features(q), k.softmax(2), v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        if self.spelling == "shared":  # each head's queries choose from the first head's features
            k, v = k[:, 0], v[:, 0]
            mixed = q @ (0.3 * (k.mT @ v)).unsqueeze(1)
        elif self.spelling == "transposed":
            mixed = ((v.mT @ k) @ q.mT).mT
        else:
            mixed = torch.einsum("bhnd,bhde->bhne", q, torch.einsum("bhnd,bhne->bhde", k, v))
        return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("spelling", ["shared", "transposed", "einsum"])
@pytest.mark.parametrize("phi", ["relu", "signed"])
def test_factor_attention_is_linear_attention(spelling: str, phi: str) -> None:
    """One mixing for each head, though labels could be averaged over heads halfway."""
    model, image, labels = FactorAttention(spelling, phi), torch.randn(2, 3, 5, 7), label_image(2)
    aligned = labeltrace.align(model)
    result = aligned(image, labels)[1]
    q, k, _ = (t.double().abs() for t in model.parts(image))
    matrices = q @ (k[:, :1] if spelling == "shared" else k).mT
    matrices = (matrices / matrices.sum(-1, keepdim=True)).nan_to_num(1 / (ROWS * COLUMNS))
    expected = matrices.mean(1) @ labels.flatten(2).mT.double()
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)
    reasons = [node.approximation for node in aligned.trace(image).approximate]
    assert len(reasons) == (phi == "signed")
    assert all("may be negative" in reason for reason in reasons)


def test_hidden_states_between_two_mixings_are_positions() -> None:
    """EfficientViM: states gather the tokens, are transformed, and are read out again."""

    class StateSpace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.states = nn.Conv1d(3, 3 * 11, 1)
            self.update = nn.Conv1d(3, 3, 1)

        def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a, b, c = self.states(x.flatten(2)).chunk(3, 1)
            return a.softmax(2) * b, c

        def forward(self, x: Tensor) -> Tensor:
            gather, read = self.parts(x)
            states = x.flatten(2) @ gather.mT  # (B, 3, 11)
            return torch.relu(self.update(states)) @ read

    model, image, labels = StateSpace(), torch.randn(2, 3, 5, 7), label_image(2)
    aligned = labeltrace.align(model)
    result = aligned(image, labels)[1]
    gather, read = (t.double().abs() for t in model.parts(image))
    states = (gather / gather.sum(-1, keepdim=True)) @ labels.flatten(2).mT.double()
    rows = read.mT / read.mT.sum(-1, keepdim=True)
    torch.testing.assert_close(result.double(), (rows @ states).mT, atol=1e-5, rtol=0)
    assert not aligned.trace(image).approximate


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
