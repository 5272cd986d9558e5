"""Models whose tokens move by what they hold, small, as in their papers, against dense labels.

Every token of an image is a source of its own. The expected labels are computed by other means: the
indices once more, then matrices over tokens.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.runtime.engine_choice import EngineName

BATCH, TOKENS, FEATURES = 3, 11, 7
both_engines = pytest.mark.parametrize("engine", ["captured", "recorded"])


def tokens(seed: int = 0) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, FEATURES, TOKENS, generator=drawn)


def own_labels() -> Tensor:
    return torch.eye(TOKENS).expand(BATCH, -1, -1)


def labels_of(model: nn.Module, engine: EngineName, seed: int = 0) -> Tensor:
    """The labels (B, tokens, K) of a model of (B, features, tokens)."""
    aligned = labeltrace.align(model, engine=engine)
    for draw in range(2):  # of the recorded engine the second call repeats the first
        torch.manual_seed(draw)
        outputs, labels = aligned(tokens(seed), own_labels())
        torch.manual_seed(draw)
        assert torch.equal(outputs, model(tokens(seed)))
    assert isinstance(labels, Tensor)
    torch.testing.assert_close(labels.sum(-1), torch.ones(labels.shape[:-1]))
    return labels


def rows_of(labels: Tensor, index: Tensor) -> Tensor:
    """The rows of each image's labels, picked one by one."""
    pairs = zip(labels, index, strict=True)
    return torch.stack([torch.stack([own[i] for i in chosen.tolist()]) for own, chosen in pairs])


class EViT(nn.Module):
    """Attentive tokens stay, the others are fused by their attention (Liang et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.query, self.key = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)

    def attention(self, x: Tensor) -> Tensor:
        return (self.query(x[:, :1]) @ self.key(x[:, 1:]).mT)[:, 0].softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        attention = self.attention(x)
        kept = attention.topk(4, 1)[1]
        lost = attention.argsort(1)[:, : TOKENS - 5]
        first, others = x[:, :1], x[:, 1:]
        stay = others.gather(1, kept[..., None].expand(-1, -1, FEATURES))
        rest = others.gather(1, lost[..., None].expand(-1, -1, FEATURES))
        fused = (rest * attention.gather(1, lost)[..., None]).sum(1, keepdim=True)
        return torch.cat([first, stay, fused], 1)


@both_engines
def test_evit(engine: EngineName) -> None:
    model = EViT()
    attention = model.attention(tokens().mT)
    kept, lost = attention.topk(4, 1)[1], attention.argsort(1)[:, : TOKENS - 5]
    own = own_labels()
    shares = torch.stack(
        [row[index] / row[index].sum() for row, index in zip(attention, lost, strict=True)]
    )
    fused = (shares[..., None] * rows_of(own[:, 1:], lost)).sum(1, keepdim=True)
    expected = torch.cat([own[:, :1], rows_of(own[:, 1:], kept), fused], 1)
    torch.testing.assert_close(labels_of(model, engine), expected)


class ToMe(nn.Module):
    """The most similar pairs of even and odd tokens are merged (Bolya et al. 2023)."""

    merged = 3

    def matching(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        unit = x / x.norm(dim=-1, keepdim=True)
        best, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(-1)
        order = best.argsort(-1, descending=True)[..., None]
        alone, merged = order[:, self.merged :], order[:, : self.merged]
        return alone, merged, partner[..., None].gather(1, merged)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        alone, merged, partner = self.matching(x)
        even, odd = x[:, ::2], x[:, 1::2]
        count, _, features = even.shape
        stay = even.gather(1, alone.expand(count, -1, features))
        moved = even.gather(1, merged.expand(count, -1, features))
        odd = odd.scatter_reduce(1, partner.expand(count, -1, features), moved, "mean")
        return torch.cat([stay, odd], 1)


@both_engines
def test_tome(engine: EngineName) -> None:
    model = ToMe()
    alone, merged, partner = model.matching(tokens().mT)
    own = own_labels()
    even, odd = own[:, ::2], own[:, 1::2].clone()
    for image in range(BATCH):
        for token in range(odd.shape[1]):
            pairs = zip(merged[image, :, 0], partner[image, :, 0], strict=True)
            lands = [index for index, other in pairs if other == token]
            rows = [odd[image, token], *(even[image, int(index)] for index in lands)]
            odd[image, token] = torch.stack(rows).mean(0)
    expected = torch.cat([rows_of(even, alone[..., 0]), odd], 1)
    torch.testing.assert_close(labels_of(model, engine), expected)


class MaskedAutoencoder(nn.Module):
    """Random tokens are encoded; mask tokens take the places of the others (He et al. 2022)."""

    kept = 4

    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.ones(1, 1, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        order = torch.rand(x.shape[:2]).argsort(1)
        back = order.argsort(1)
        seen = x.gather(1, order[:, : self.kept, None].expand(-1, -1, FEATURES))
        seen = seen + seen.mean(1, keepdim=True)
        masks = self.mask_token.repeat(x.shape[0], TOKENS - self.kept, 1)
        whole = torch.cat([seen, masks], 1)
        return whole.gather(1, back[..., None].expand(-1, -1, FEATURES))


@both_engines
def test_masked_autoencoder(engine: EngineName) -> None:
    labels = labels_of(MaskedAutoencoder(), engine)
    torch.manual_seed(1)  # of the last call
    order = torch.rand(BATCH, TOKENS).argsort(1)
    expected = torch.full((BATCH, TOKENS, TOKENS), 1 / TOKENS)  # the prior
    for image, shuffled in enumerate(order.tolist()):
        seen = shuffled[: MaskedAutoencoder.kept]
        mean = torch.eye(TOKENS)[seen].mean(0)
        for token in seen:
            expected[image, token] = (torch.eye(TOKENS)[token] + mean) / 2
    torch.testing.assert_close(labels, expected)


class MixtureOfExperts(nn.Module):
    """Each token goes through its best expert and back to its place (Riquelme et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.router = nn.Linear(FEATURES, 3)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.mT.flatten(0, 1)
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        result = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            result.index_add_(0, token, weights[token, place, None] * expert(flat[token]))
        return result.view(x.shape[0], -1, FEATURES).roll(1, 1)


def test_mixture_of_experts() -> None:
    torch.testing.assert_close(labels_of(MixtureOfExperts(), "recorded"), own_labels().roll(1, 1))


class ExpertsOfImages(nn.Module):
    """Whole images are sent to one of two experts by a mask over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        first = x.mean((1, 2)) > 0
        result = torch.empty_like(x)
        result[first] = x[first].flip(1)
        result[~first] = x[~first].roll(2, 1)
        return result


def test_experts_of_images() -> None:
    first = tokens().mean((1, 2)) > 0
    assert first.any() and not first.all()
    own = own_labels()
    expected = torch.where(first[:, None, None], own.flip(1), own.roll(2, 1))
    torch.testing.assert_close(labels_of(ExpertsOfImages(), "recorded"), expected)


class DynamicTokens(nn.Module):
    """Gumbel-softmax decides which tokens stay; the mask is a gate (Rao et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.scorer = nn.Linear(FEATURES, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        policy = F.gumbel_softmax(self.scorer(x), hard=True)[..., :1]
        return (x * policy).roll(1, 1)


@both_engines
def test_dynamic_tokens(engine: EngineName) -> None:
    torch.testing.assert_close(labels_of(DynamicTokens(), engine), own_labels().roll(1, 1))
