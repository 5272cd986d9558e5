"""Labels of random architectures: the contract's properties, and soundness against autograd.

`LABELTRACE_FUZZ_EXAMPLES=10000` raises the number of architectures and draws new ones each time, in
several parts, which processes can share.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import labeltrace
from labeltrace import AlignedModule, LayoutError
from tests.oracles.soundness import check_soundness
from tests.random_architectures.architectures import (
    IMAGE_CHANNELS,
    Architecture,
    Attention,
    Code,
    Promise,
    architectures,
)

FUZZ_EXAMPLES = int(os.environ.get("LABELTRACE_FUZZ_EXAMPLES", "0"))
PARTS = 40 if FUZZ_EXAMPLES else 1
BATCH = 3


def examples(number: int) -> settings:
    """So many architectures, always the same ones, unless a fuzz run asks for more.

    Only a fuzz run takes the minutes to look for the smallest model that fails.
    """
    return settings(
        phases=[Phase.generate, Phase.shrink] if FUZZ_EXAMPLES else [Phase.generate],
        max_examples=-(-FUZZ_EXAMPLES // PARTS) or number,
        derandomize=not FUZZ_EXAMPLES,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def images_of(architecture: Architecture, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, IMAGE_CHANNELS, *architecture.image_size, generator=generator)


def identity(architecture: Architecture, batch: int = BATCH) -> Tensor:
    """One source for each pixel: (B, rows * columns, rows, columns)."""
    rows, columns = architecture.image_size
    cells = torch.eye(rows * columns).reshape(1, -1, rows, columns)
    return cells.expand(batch, -1, -1, -1)


def random_labels(architecture: Architecture, sources: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(BATCH, sources, *architecture.image_size, generator=generator)
    return noise / noise.sum(1, keepdim=True)


def sources_last(labels: Tensor, architecture: Architecture) -> Tensor:
    """(B, positions, K)."""
    return (
        labels.movedim(architecture.channel_dim, -1).flatten(1, -2)
        if labels.dim() > 2
        else labels[:, None]
    )


def assert_distributions(labels: Tensor, dim: int) -> None:
    assert labels.dtype == torch.float32
    assert not labels.requires_grad
    assert bool((labels >= 0).all()), f"negative or NaN: {labels.min()}"
    torch.testing.assert_close(labels.sum(dim), torch.ones_like(labels.sum(dim)), atol=1e-5, rtol=0)


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    for (name, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("part", range(PARTS))
@examples(60)
@given(architectures(), st.booleans(), st.permutations(range(BATCH)))
def test_random_architecture(
    part: int, architecture: Architecture, training: bool, order: list[int]
) -> None:
    note(repr(architecture))
    aligned = labeltrace.align(architecture.model)
    check_contract(architecture, aligned, training)
    check_batch(architecture, aligned, order)
    if architecture.promise is not Promise.NONE:
        check_sources(architecture, aligned)


def check_contract(architecture: Architecture, aligned: AlignedModule, training: bool) -> None:
    """All that the contract says of any model."""
    model = architecture.model.train(training)
    plain = copy.deepcopy(model)
    images, cells = images_of(architecture), identity(architecture)
    dim = architecture.channel_dim

    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return aligned(images, labels)

    # The forward half is the model, bit for bit.
    torch.manual_seed(0)
    expected = plain(images)
    state = torch.random.get_rng_state()
    outputs, provenance = run(images, cells)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(outputs, expected)
    assert_same_state(model, plain)

    shape = list(outputs.shape)
    shape[dim] = cells.shape[1]
    assert list(provenance.shape) == shape
    assert_distributions(provenance, dim)

    # Linear in the label: any K sources are the one-hot basis times the label image.
    flows = sources_last(provenance, architecture)
    for sources in (2, 3):
        labels = random_labels(architecture, sources)
        result = run(images, labels)[1]
        assert_distributions(result, dim)
        product = flows @ labels.flatten(2).mT
        torch.testing.assert_close(sources_last(result, architecture), product, atol=1e-5, rtol=0)

    # One label everywhere stays.
    uniform = torch.tensor([0.2, 0.3, 0.5])[None, :, None, None].expand(BATCH, -1, 1, 1)
    result = sources_last(run(images, uniform)[1], architecture)
    torch.testing.assert_close(
        result, torch.tensor([0.2, 0.3, 0.5]).expand_as(result), atol=1e-5, rtol=0
    )


def check_batch(architecture: Architecture, aligned: AlignedModule, order: list[int]) -> None:
    """Images keep their own labels, in any order and alone."""
    architecture.model.eval()
    images, labels = images_of(architecture), random_labels(architecture, 3)
    together = aligned(images, labels)[1]
    permuted = aligned(images[order], labels[order])[1]
    torch.testing.assert_close(permuted, together[order], atol=1e-5, rtol=0)
    for image in range(BATCH):
        alone = aligned(images[image : image + 1], labels[image : image + 1])[1]
        torch.testing.assert_close(alone, together[image : image + 1], atol=1e-5, rtol=0)


def check_sources(architecture: Architecture, aligned: AlignedModule) -> None:
    """Soundness: a position has a source only if the Jacobian says that it can read it."""
    images, cells = images_of(architecture, 2), identity(architecture, 2)
    check_soundness(
        architecture.model.eval(),
        aligned(images, cells)[1],
        images,
        cells[:1],
        equal=architecture.promise is Promise.EQUAL,
        prior=architecture.prior,
        channel_dim=architecture.channel_dim,
    )


# Faults that were found, each with the smallest model that shows it.


FOUND = {
    "positions_repeated_by_a_view": (
        Code("x[..., None].expand(-1, -1, -1, -1, 2).flatten(3)"),
        1,
    ),
    "windows_in_the_padding_alone": (nn.Conv2d(2, 3, 1, padding=1), 1),
    "more_padding_than_kernel": (nn.Conv2d(2, 3, 3, padding=3), 1),
    "dilated_pool_with_ceil_mode": (nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True), 1),
    "dilated_pool_whose_taps_are_all_padding": (nn.MaxPool2d(2, 1, 1, dilation=6), 1),
    "joined_piece_repeated_along_another_axis": (
        Code("torch.cat([x, x.mean(3, keepdim=True).expand_as(x)], 2)"),
        1,
    ),
    "pieces_without_channels_before_others": (
        Code("torch.cat([self.layer(x)[:, :0], x[:, :0], x], 1)", layer=nn.Conv2d(2, 3, 3, 1, 1)),
        1,
    ),
    "convolution_of_one_label_repeated": (
        Code("self.layer(x.mean((2, 3), keepdim=True).expand_as(x))", layer=nn.Conv2d(2, 3, 3)),
        1,
    ),
    "pool_of_one_label_repeated": (
        Code("F.avg_pool2d(x.mean((2, 3), keepdim=True).expand_as(x), 2)"),
        1,
    ),
    "spatial_mixing_into_one_row": (nn.Linear(5, 1), 1),
    "spatial_mixing_of_one_row": (
        Code("self.layer(x[:, :, :1].mT).mT", layer=nn.Linear(1, 1)),
        1,
    ),
    "positions_repeated_in_the_output": (Code("x.repeat_interleave(2, 3)"), 1),
    "convolution_of_repeated_positions": (
        Code("self.layer(x.repeat(1, 1, 2, 1))", layer=nn.Conv2d(2, 3, 3)),
        1,
    ),
    "slice_of_repeated_positions": (Code("x.repeat_interleave(2, 3)[..., ::3]"), 1),
    "linear_layer_over_an_axis_of_one": (
        Code("self.layer(x.mean(3, keepdim=True))", layer=nn.Linear(1, 3)),
        1,
    ),
    "fused_attention_of_one_label": (
        Code(
            "(lambda t: F.scaled_dot_product_attention(t, t, t).mT.view_as(x))"
            "(x.mean((2, 3), keepdim=True).expand_as(x).flatten(2).mT)"
        ),
        1,
    ),
    "bounded_scores_of_one_bounded_token": (
        Code(
            "(lambda t: (t @ t.mT).softmax(-1) @ self.layer(t))"
            "(torch.tanh(x).mean((2, 3)).tanh()[:, None])",
            layer=nn.Linear(2, 3),
        ),
        2,
    ),
    "join_of_one_label": (Code("torch.cat([x.mean((2, 3), keepdim=True)] * 2, 2)"), 1),
    "padding_of_one_label": (Code("F.pad(x.mean((2, 3), keepdim=True), (1, 2))"), 1),
    "index_of_one_label": (
        Code("x.mean((2, 3), keepdim=True)[:, :, self.index]", index=torch.tensor([0, 0])),
        1,
    ),
}


def test_grouped_transposed_convolution_normalises_every_output_channel() -> None:
    """Two depth-wise kernels count alike, however large one is (contract, point 4)."""
    layer = nn.ConvTranspose1d(2, 2, 2, stride=1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 3.0]], [[300.0, 100.0]]]))
    labels = torch.eye(3)[None]
    moved = labeltrace.align(layer)(torch.randn(1, 2, 3), labels)[1]
    # Each kernel by itself is (1/4, 3/4) and (3/4, 1/4): together (1/2, 1/2).
    torch.testing.assert_close(moved[0, :, 1], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("repeated", "widths"),
    [(1, (1, 2)), (1, (1, 0, 2, 1)), (3, (0, 0, 1, 2)), (3, (0, 0, -1, 2)), (3, (0, 0, -1, -1))],
)
def test_constants_beside_one_label_carry_the_prior(repeated: int, widths: tuple[int, ...]) -> None:
    """Also along an axis on which nothing varies, where another one has the channels."""
    text = f"F.pad(x.mean(2, keepdim=True).expand(-1, -1, {repeated}, -1), {widths})"
    images, cells = (
        torch.randn(2, 2, 6, 5),
        torch.eye(30).reshape(1, -1, 6, 5).expand(2, -1, -1, -1),
    )
    moved = labeltrace.align(Code(text))(images, cells)[1]
    expected = F.pad(cells.mean(2, keepdim=True).expand(-1, -1, repeated, -1), widths, value=-1)
    expected = expected.where(expected >= 0, 1 / 30)
    torch.testing.assert_close(moved, expected)


def test_padding_of_several_axes_beside_one_label_says_what_to_do() -> None:
    model = Code("F.pad(x.mean(2, keepdim=True).expand(-1, -1, 3, -1), (1, 0, 1, 0))")
    message = "several axes are padded at once, one of which repeats a label: axis 2 .* one after"
    with pytest.raises(LayoutError, match=message):
        labeltrace.trace(model, torch.randn(2, 2, 6, 5))


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    model, channel_dim = FOUND[name]
    architecture = Architecture(model, (6, 5), channel_dim, Promise.NONE, prior=False)
    check_contract(architecture, labeltrace.align(model), False)


ONES: dict[str, tuple[nn.Module, tuple[int, int], bool]] = {
    "one_row_beside_columns": (
        nn.Sequential(
            Code("x.transpose(2, 3).flatten(2).mT"), Attention(2, 1, 11, "fused", "none")
        ),
        (1, 11),
        False,
    ),
    "batch_of_one_beside_tokens": (
        nn.Sequential(
            Code("x.flatten(2).transpose(1, 2)"),
            Code(
                "self.layer(x, x, x, need_weights=False)[0]",
                layer=nn.MultiheadAttention(2, 1, batch_first=True),
            ),
            Code(
                "torch.cat([x, self.token.expand(len(x), -1, -1)], dim=-2)",
                token=nn.Parameter(torch.ones(1, 1, 2)),
            ),
        ),
        (6, 5),
        True,
    ),
}


@pytest.mark.parametrize("name", ONES)
def test_positions_of_size_one_stay_beside_positions(name: str) -> None:
    model, image_size, prior = ONES[name]
    architecture = Architecture(model, image_size, 2, Promise.EQUAL, prior)
    aligned = labeltrace.align(model)
    check_contract(architecture, aligned, training=False)
    check_batch(architecture, aligned, [2, 0, 1])
    check_sources(architecture, aligned)


def test_batch_norm_of_one_row_with_channels_last() -> None:
    """Its gradient, as PyTorch has it, names other columns than the one that is read."""
    model = nn.Sequential(
        Code("x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)"),
        nn.BatchNorm2d(2),
        Code("x[:, :, 0, -1]"),
    )
    architecture = Architecture(model, (1, 11), 1, Promise.EQUAL, prior=False)
    check_sources(architecture, labeltrace.align(model))


def test_additive_mask_of_a_model_in_double_precision() -> None:
    mask = torch.zeros(30, 30, dtype=torch.float64)
    text = "(lambda t: F.scaled_dot_product_attention(t, t, t, self.mask))(x.flatten(2).mT)"
    model = Code(text, mask=mask)
    images = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    architecture = Architecture(model, (6, 5), 2, Promise.NONE, prior=False)
    labels = labeltrace.align(model)(images, identity(architecture, 2))[1]
    assert_distributions(labels, 2)
