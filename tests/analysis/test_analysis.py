"""The paper's measurements: against loops in float64, and where the answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from labeltrace import CutMix, LabelError, MixUp, labels_at, provenance
from labeltrace.analysis import (
    fidelity,
    input_fidelity,
    presence,
    ratio_curves,
    similarity,
    similarity_ratio,
    source_chunks,
    target_rmse,
)
from tests.helpers.small_models import (
    SIZE,
    SIZES,
    attention_maps,
    observed_model,
    small_convnext,
    small_mixer,
    small_swin,
    small_vit,
)

generator = torch.Generator().manual_seed(17)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


# Provenance.


@pytest.mark.parametrize("class_token", [True, False])
def test_provenance_of_a_vit_is_attention_rollout(class_token: bool) -> None:
    """Abnar and Zuidema's product of 0.5 A + 0.5 I; a class token starts as the image's mean."""
    observer = observed_model(small_vit) if class_token else small_vit(class_token=False)
    model = small_vit(class_token)
    images = random(2, 3, *SIZE)
    found = provenance(observer, images, (5, 7), at=["blocks.*", "output"])
    count = 35 + class_token
    rollout = torch.eye(count, dtype=torch.float64).expand(2, -1, -1)
    for layer, attention in enumerate(attention_maps(model, images)):
        rollout = (0.5 * attention + 0.5 * torch.eye(count)) @ rollout
        shares = rollout[..., class_token:] + (rollout[..., :1] / 35 if class_token else 0)
        torch.testing.assert_close(
            found[f"blocks.{layer}"].shares.flatten(2), shares.float(), rtol=1e-4, atol=1e-6
        )
    last = shares[:, :1] if class_token else shares.mean(1, keepdim=True)
    torch.testing.assert_close(found["output"].shares.flatten(2), last.float())
    token = found["blocks.1"].token(3, 2)
    assert torch.equal(token, found["blocks.1"].shares[:, class_token + 3 * 7 + 2])
    with pytest.raises(LabelError, match="choose a row below 5 and a column below 7"):
        found["blocks.1"].token(5, 0)
    with pytest.raises(LabelError, match="form no map; index shares instead"):
        found["output"].token(0, 0)


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (small_swin, "layers.1.blocks.0"),
        (small_mixer, "blocks.0.mlp_tokens.fc1"),
        (small_convnext, "stages.1"),
    ],
)
def test_provenance_gives_the_label_of_every_image_made_of_its_cells(
    make: Callable[[], nn.Module],
    at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = SIZES[make]
    images, grid = random(2, 3, *size), (5, 7)
    monkeypatch.setattr(
        source_chunks, "CHUNK_BYTES", 4 * 2 * size[0] * size[1] * 12
    )  # 11 cells a chunk
    observer = observed_model(make)
    found = provenance(observer, images, grid, at=[at, "output"])
    cells = torch.rand(2, 3, *grid, generator=generator).softmax(1)
    rows = [y * grid[0] // size[0] for y in range(size[0])]
    columns = [x * grid[1] // size[1] for x in range(size[1])]
    expected = labels_at(observer, images, cells[:, :, rows][..., columns], found)
    for name, seen in found.items():
        torch.testing.assert_close(
            torch.einsum("bnhw,bkhw->bnk", seen.shares, cells), expected[name].labels
        )


@pytest.mark.parametrize("grid", [(0, 3), (13, 3), (3, 21)])
def test_grids_that_do_not_fit_are_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(LabelError, match=r"choose 1 to 12 rows and 1 to 20 columns"):
        provenance(nn.Identity(), random(1, 3, 12, 20), grid)


# Presence.


def test_presence_in_attention_is_the_sum_of_each_tokens_weights() -> None:
    model, images = small_vit(), random(2, 3, *SIZE)
    found = presence(observed_model(small_vit), images, modules=["blocks.*"])
    assert list(found) == [f"blocks.{layer}.attn" for layer in range(3)]
    for seen, attention in zip(found.values(), attention_maps(model, images), strict=True):
        torch.testing.assert_close(seen.values, attention.sum(1).float())
        assert seen.even == 1 and seen.grid is not None and seen.grid.shape == (5, 7)
        for image in range(2):
            squares = [(float(attention[image, :, i].sum()) - 1) ** 2 for i in range(36)]
            assert seen.fluctuation[image].item() == pytest.approx((sum(squares) / 36) ** 0.5)


def test_presence_in_a_convolution_is_one_away_from_the_edge_and_known_at_it() -> None:
    """Eq. 3; weights inside the image are those that count, so two rings feel the padding."""
    torch.manual_seed(0)
    model, images = nn.Conv2d(3, 3, 3, padding=1, groups=3), random(1, 3, 7, 11)
    (seen,) = presence(model, images).values()
    values = seen.grid.map(seen.values)[0]
    assert seen.grid.shape == (7, 11)
    torch.testing.assert_close(values[2:-2, 2:-2], torch.ones(3, 7))
    assert (values[:2] - 1).abs().min() > 1e-4
    taps = (model.weight[:, 0].abs() / model.weight.abs().sum((1, 2, 3))[:, None, None]).mean(0)
    expected = torch.zeros(7, 11)
    for y in range(7):
        for x in range(11):
            near = [(a, b) for a in range(3) for b in range(3)]
            inside = [(a, b) for a, b in near if 0 <= y + a - 1 < 7 and 0 <= x + b - 1 < 11]
            whole = sum(taps[a, b] for a, b in inside)
            for a, b in inside:
                expected[y + a - 1, x + b - 1] += taps[a, b] / whole
    torch.testing.assert_close(values, expected)


def test_presence_sums_to_the_outputs_in_windows_and_hidden_layers_and_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = random(2, 3, 12, 20)
    swin = observed_model(small_swin)
    whole = presence(swin, images)
    assert [seen.grid.shape for seen in whole.values()] == [(6, 10), (6, 10), (3, 5)]
    monkeypatch.setattr(source_chunks, "CHUNK_BYTES", 4 * 2 * 60 * 2 * 8)
    for name, seen in presence(swin, images).items():
        torch.testing.assert_close(seen.values, whole[name].values)
        torch.testing.assert_close(seen.values.sum(1), torch.full((2,), seen.values.shape[1] * 1.0))
    mixer, images = observed_model(small_mixer), random(2, 3, 12, 12)
    found = presence(mixer, images)["blocks.1.mlp_tokens.fc1"]
    weight = mixer.model.blocks[1].mlp_tokens.fc1.weight.abs()
    torch.testing.assert_close(found.values[0], (weight / weight.sum(1, keepdim=True)).sum(0))
    assert found.even == weight.shape[0] / 9
    with pytest.raises(
        LabelError,
        match=r"no step in head mixes positions; such steps are in blocks\.0\.mlp_tokens\.fc1",
    ):
        presence(mixer, images, modules=["head"])


# Similarity and curves.


def test_similarity_ratio_is_the_softmax_of_largest_cosines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed, first, second = random(2, 7, 5), random(2, 11, 5), random(2, 3, 5)
    monkeypatch.setattr(similarity, "BLOCK_BYTES", 4 * 2 * 11 * 2)  # two rows a block
    found = similarity_ratio(mixed, first, second)
    for image in range(2):
        for token in range(7):
            largest = [
                max(functional.cosine_similarity(mixed[image, token], z, dim=0) for z in other)
                for other in (first[image].double(), second[image].double())
            ]
            weights = [value.exp() for value in largest]
            assert found[image, token].item() == pytest.approx(
                (weights[0] / sum(weights)).item(), abs=1e-6
            )
    with pytest.raises(LabelError, match="pass tokens"):
        similarity_ratio(mixed, first[..., 1:], second)


def test_ratio_curves_of_a_class_token() -> None:
    model = small_vit()
    first, second = random(2, 3, *SIZE), random(2, 3, *SIZE)
    inside = torch.zeros(2, 1, *SIZE)
    inside[0, :, 3:13, 5:19] = 1
    inside[1, :, :11, 14:] = 1
    mixed, labels = inside * first + (1 - inside) * second, torch.cat([inside, 1 - inside], 1)
    observer = observed_model(small_vit)
    curves = ratio_curves(observer, mixed, labels, first, second, token=0)
    assert curves.layers == ("blocks.0", "blocks.1", "blocks.2")
    torch.testing.assert_close(curves.cutmix, inside.mean((1, 2, 3)))
    row = attention_maps(model, mixed)[-1][:, 0, 1:]
    patches = functional.avg_pool2d(inside.double(), 4).flatten(1)
    torch.testing.assert_close(curves.transmix, ((row * patches).sum(1) / row.sum(1)).float())
    aligned = labels_at(observer, mixed, labels, ["output"])["output"].labels
    torch.testing.assert_close(curves.alignment[-1], aligned[:, 0, 0])
    tokens = [
        model.blocks[0](model._pos_embed(model.patch_embed(x))) for x in (mixed, first, second)
    ]
    torch.testing.assert_close(curves.similarity[0], similarity_ratio(*tokens)[:, 0])
    with pytest.raises(LabelError, match="there is no token 36; choose one below 36"):
        ratio_curves(observer, mixed, labels, first, second, token=36)
    with pytest.raises(LabelError, match="which says for each pixel which of two images"):
        ratio_curves(observer, mixed, labels[:, :1], first, second)


def test_ratio_curves_of_pooled_features_follow_the_mean_token() -> None:
    """The last mixing step of a mixer reads hidden positions: TransMix means nothing there."""
    model, images = observed_model(small_mixer), random(3, 3, 12, 12)
    batch = CutMix()(images, torch.arange(3), generator=generator)
    partners = images[batch.classes[:, 1]]
    curves = ratio_curves(model, batch.images, batch.labels, images, partners)
    assert curves.transmix is None
    aligned = labels_at(model, batch.images, batch.labels, ["output"])["output"].labels
    torch.testing.assert_close(curves.alignment[-1], aligned[:, 0, 0])
    with pytest.raises(LabelError, match="by which layers are found"):
        ratio_curves(nn.Conv2d(3, 5, 3), batch.images, batch.labels, images, partners)


# Targets.


def test_target_rmse_is_over_all_images_of_a_stream() -> None:
    models = {"vit": small_vit().train(), "flat": nn.Sequential(nn.Flatten(), nn.Linear(1680, 5))}
    batches = [
        mix(random(count, 3, *SIZE), torch.arange(count), generator=generator)
        for mix, count in ((CutMix(), 5), (CutMix(), 2), (MixUp(), 3))
    ]
    found = target_rmse(models, iter(batches))
    squares = []
    vit = observed_model(small_vit)
    for batch in batches:
        labels = labels_at(vit, batch.images, batch.labels, ["output"])["output"].labels[:, 0]
        squares += [
            (float(a) - float(b)) ** 2
            for row, other in zip(labels, batch.mixing_ratio, strict=True)
            for a, b in zip(row, other, strict=True)
        ]
    assert found["vit"] == pytest.approx((sum(squares) / len(squares)) ** 0.5)
    assert found["vit"] > 1e-3 and models["vit"].training
    assert found["flat"] < 0.2
    with pytest.raises(
        LabelError,
        match=r"target_rmse got no batches; pass a list, or a new iterator: .* only once",
    ):
        target_rmse(models, iter([]))
    with pytest.raises(LabelError, match="target_rmse needs at least one model; pass"):
        target_rmse({}, batches)
    with pytest.raises(LabelError, match="wrap it in a module that returns the logits"):
        target_rmse({"map": nn.Conv2d(3, 5, 3)}, batches)


# Fidelity.


def test_gradients_and_occlusion_of_a_linear_model_are_known() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6, 2))
    images, grid = random(3, 3, 4, 6), (2, 3)
    weight = model[1].weight.detach().reshape(2, 3, 2, 2, 3, 2)  # outputs, C, h, 2, w, 2
    norms = weight.square().sum((0, 1, 3, 5)).sqrt()
    found = input_fidelity.jacobian_norms(model, images, grid, probes=4000, generator=generator)
    torch.testing.assert_close(found, norms.expand(3, -1, -1), rtol=0.06, atol=0)
    away = images - images.mean((2, 3), keepdim=True)
    moved = torch.einsum("ochywx,bchywx->bohw", weight, away.reshape(3, 3, 2, 2, 3, 2)).norm(dim=1)
    torch.testing.assert_close(input_fidelity.occlusion_effects(model, images, grid), moved)


def test_rank_correlation_shares_the_ranks_of_ties() -> None:
    first = torch.tensor([[0.1, 0.4, 0.4, 0.9], [3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    second = torch.tensor([[5.0, 7.0, 6.0, 6.0], [0.0, 2.0, 1.0, 3.0], [1.0, 2.0, 3.0, 4.0]])
    ranks = torch.tensor([[0.0, 1.5, 1.5, 3.0], [0.0, 3.0, 1.5, 1.5]])
    expected = torch.corrcoef(ranks)[0, 1].item()
    found = input_fidelity.rank_correlation(first, second)
    assert found.tolist() == pytest.approx([expected, -1.0, 0.0], abs=1e-6)


def test_fidelity_is_perfect_where_mixing_is_all_that_a_model_does() -> None:
    class Weighted(nn.Module):
        """Each cell of 2 x 3 counts by its own weight, in labels and in the output alike."""

        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.Linear(6, 1, bias=False)
            self.cells.weight.data = torch.tensor([[0.3, 0.1, 0.9, 0.5, 0.7, 0.2]])

        def forward(self, images: Tensor) -> Tensor:
            return self.cells(functional.avg_pool2d(images, 2).flatten(2)).squeeze(-1)

    images = torch.where(torch.arange(6) % 2 == 0, 1.0, -1.0)  # every cell is as far from gray
    images = images.reshape(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)
    images = images.expand(2, 3, 4, 6)
    model = Weighted()
    found = fidelity({"weighted": model.train()}, images, (2, 3), generator=generator)["weighted"]
    assert found.gradient.tolist() == pytest.approx([1.0, 1.0])
    assert found.occlusion.tolist() == pytest.approx([1.0, 1.0])
    assert model.training and not model.cells.weight.grad
    with pytest.raises(LabelError, match="has no two cells to rank"):
        fidelity({"weighted": model}, images, (1, 1))
    several = nn.AdaptiveMaxPool2d(1, return_indices=True)
    with pytest.raises(LabelError, match="the model returns tuple; wrap it in a module that"):
        input_fidelity.occlusion_effects(several, images, (2, 3))
    with pytest.raises(LabelError, match=r"images must be a tensor .*; stack single images first"):
        input_fidelity.occlusion_effects(model, images[0], (2, 3))
