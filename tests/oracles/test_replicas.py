"""The replicas themselves: against the paper's official code, against torch, and their properties.

`vectors/tl_align_vit.safetensors` was made by the official implementation of the paper (DeiT) on
fixed random weights and inputs, in float32.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.oracles.official import official
from tests.oracles.replicas import dense, swin, vision_transformer
from tests.oracles.replicas.label_mover import attention_by_hand, label_mover
from tests.oracles.replicas.models import CASES, ReplicaCase, example_inputs

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_vision_transformer_agrees_with_the_official_implementation() -> None:
    model, tensors = official()
    images, label_image = tensors["images"], tensors["label_image"]
    with torch.no_grad():
        # Rounding in float32 alone moves these logits by several 1e-6 (they reach 3.3); an
        # epsilon of 1e-5 instead of 1e-6 in the layer norms would move them by 3e-4.
        torch.testing.assert_close(model(images), tensors["logits"], atol=1e-5, rtol=0)
    first = vision_transformer.first_token_labels(model, label_image)
    torch.testing.assert_close(first, tensors["token_labels"].double(), atol=1e-6, rtol=0)
    aligned = vision_transformer.aligned_labels(model, images, label_image)
    torch.testing.assert_close(aligned, tensors["aligned"].double(), atol=1e-6, rtol=0)


@every_case
def test_labels_are_distributions_that_moved(case: ReplicaCase) -> None:
    images, label_image = example_inputs(case)
    labels = case.aligned_labels(case.build(), images, label_image)
    assert labels.shape == label_image.shape[:2]
    assert labels.dtype == torch.float64
    assert labels.min() >= 0
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert (labels - dense.prior(label_image)).abs().amax() > 1e-3


@every_case
def test_uniform_label_image_stays_uniform(case: ReplicaCase) -> None:
    images, label_image = example_inputs(case)
    everywhere = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.1, 0.2]], dtype=torch.float64)
    uniform = everywhere[:, :, None, None].expand(label_image.shape)
    torch.testing.assert_close(case.aligned_labels(case.build(), images, uniform), everywhere)


@every_case
def test_labels_are_linear_in_the_label_image(case: ReplicaCase) -> None:
    images, first = (tensor.double() for tensor in example_inputs(case))
    second = example_inputs(case, seed=1)[1].double()
    model = case.build()
    images = images.float()
    of_first, of_second, of_blend = (
        case.aligned_labels(model, images, labels)
        for labels in (first, second, 0.3 * first + 0.7 * second)
    )
    torch.testing.assert_close(of_blend, 0.3 * of_first + 0.7 * of_second)


@every_case
def test_each_image_has_its_labels_alone(case: ReplicaCase) -> None:
    images, label_image = example_inputs(case, batch=3)
    model = case.build()
    together = case.aligned_labels(model, images, label_image)
    for image in range(3):
        one = slice(image, image + 1)
        alone = case.aligned_labels(model, images[one], label_image[one])
        torch.testing.assert_close(alone, together[one], atol=1e-6, rtol=0)


@every_case
def test_building_is_repeatable_and_draws_no_global_random_numbers(case: ReplicaCase) -> None:
    state = torch.random.get_rng_state()
    first, second = case.build(), case.build()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    for (name, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
        # Nothing trivial is left: no parameter is constant.
        if value.is_floating_point() and value.numel() > 1:
            assert value.std() > 0, name


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name.startswith(("vit", "deit", "swin"))],
    ids=lambda case: case.name,
)
def test_attention_by_hand_gives_what_the_module_gives(case: ReplicaCase) -> None:
    """Proof that the probabilities are the model's own: mask, bias, scale, norms and order."""
    model = case.build()
    images, _ = example_inputs(case)
    by_hand = attention_by_hand(model, images)
    given: dict[nn.Module, Tensor] = {}
    for attention in by_hand:
        attention.register_forward_hook(
            lambda module, _, result: given.update({module: result.detach().double()})
        )
    with torch.no_grad():
        model(images)
    for attention, (probabilities, values) in by_hand.items():
        mixed = (probabilities @ values).transpose(1, 2).flatten(2)
        weight = attention.get_parameter("proj.weight").detach().double()
        bias = attention.get_parameter("proj.bias").detach().double()
        torch.testing.assert_close(mixed @ weight.T + bias, given[attention], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("fused", "written_out"),
    [("vit_class_token", "vit_written_out_attention"), ("swin_fused_attention", "swin")],
)
def test_fused_and_written_out_attention_give_the_same_labels(fused: str, written_out: str) -> None:
    named = {case.name: case for case in CASES}
    inputs = example_inputs(named[fused])
    one, other = (
        case.aligned_labels(case.build(), *inputs) for case in (named[fused], named[written_out])
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "gmlp"], ids=lambda case: case.name
)
def test_walk_is_the_one_that_the_models_own_code_takes(case: ReplicaCase) -> None:
    """Every step, its order and its residuals, since timm's own forward code walks here.

    Labels travel less their prior: so zero padding carries the prior, like tokens set to zero. Each
    residual connection adds what the contract averages, which doubles the scale. (gMLP is left
    out: it multiplies labels.)
    """
    images, label_image = example_inputs(case)
    model = case.build()
    expected = case.aligned_labels(model, images, label_image)
    residuals = sum(
        2 if hasattr(module, "norm2") else 1
        for module in model.modules()
        if type(module).__name__.endswith(("Block", "Bottleneck"))
    )
    prior = dense.prior(label_image)
    sources = label_image.shape[1]
    moved = label_mover(model, images, sources)(label_image.double() - prior[:, :, None, None])
    torch.testing.assert_close(prior + moved.detach() / 2**residuals, expected)


@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "stride", "padding", "dilation"),
    [
        ((2, 3), 1, (7, 5), (2, 3), (3, 1), (1, 1)),
        ((6, 4), 2, (3, 3), (1, 2), (2, 2), (2, 3)),
        ((5, 5), 5, (5, 7), (1, 1), (2, 3), (1, 1)),
        ((2, 3), 1, (1, 1), (2, 2), (0, 0), (1, 1)),
    ],
    ids=["strided", "grouped_dilated", "depth_wise", "subsampling"],
)
def test_convolution_of_labels_is_torchs_convolution_with_the_contracts_kernel(
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, stride, padding, dilation, groups).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    labels = torch.rand(2, 3, 13, 17, generator=generator, dtype=torch.float64)
    magnitude = layer.weight.detach().abs().sum(dim=1, keepdim=True)
    taps = (magnitude / magnitude.sum(dim=(2, 3), keepdim=True)).mean(dim=0, keepdim=True)

    def convolved(maps: Tensor) -> Tensor:
        taps_per_source = taps.expand(maps.shape[1], -1, -1, -1)
        return F.conv2d(maps, taps_per_source, None, stride, padding, dilation, maps.shape[1])

    expected = convolved(labels) / convolved(torch.ones_like(labels))
    mixed = dense.through_convolution(labels.permute(0, 2, 3, 1), layer)
    torch.testing.assert_close(mixed.permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("rows", [11, 12, 13])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (2, 3, 1), (3, 4, 1)])
def test_pooling_of_labels_is_torchs_average_over_positions_inside(
    window: tuple[int, int, int], ceil_mode: bool, rows: int
) -> None:
    labels = torch.rand(2, 3, rows, 17, dtype=torch.float64)
    layer = nn.AvgPool2d(*window, ceil_mode=ceil_mode, count_include_pad=False)
    mixed = dense.through_pooling(labels.permute(0, 2, 3, 1), layer)
    torch.testing.assert_close(mixed.permute(0, 3, 1, 2), layer(labels))
    largest = nn.MaxPool2d(*window, ceil_mode=ceil_mode)
    same = dense.through_pooling(labels.permute(0, 2, 3, 1), largest)
    assert torch.equal(same, mixed)


def test_weights_of_zero_fall_back_to_equal_weights_over_what_could_be_seen() -> None:
    kernel = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.rand(2, 3, 5, 3, dtype=torch.float64)
    # With padding before and after, only the tap at the end is not zero: the last row and column
    # of outputs see the map through taps of zero weight.
    mixed = dense.mixed_by_kernel(labels, kernel, (1, 1), (1, 1), (1, 1))
    torch.testing.assert_close(mixed[:, :3, :5], labels)
    torch.testing.assert_close(mixed[:, 3, 1], labels[:, 2, :2].mean(dim=1))
    torch.testing.assert_close(mixed[:, 3, 5], labels[:, 2, 4])
    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, -3.0, 0.0]])
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.25, 0.75, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(dense.norm(rows), expected)


def test_replicas_refuse_what_they_do_not_know() -> None:
    case = CASES[0]
    images, label_image = example_inputs(case)
    with pytest.raises(ValueError, match="eval mode"):
        case.aligned_labels(case.build().train(), images, label_image)
    with pytest.raises(TypeError, match="knows SwinTransformer, not VisionTransformer"):
        swin.aligned_labels(case.build(), images, label_image)
