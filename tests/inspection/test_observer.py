"""Labels and activations at any node: against written-out replicas and plain geometry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import labeltrace
from labeltrace import LabelError, LayoutError, Observer, labels_at, layout
from labeltrace.flow import Average, OneSourceStep
from labeltrace.inspection.places import field_layout
from labeltrace.inspection.single_steps import isolate_steps
from labeltrace.tracing.ablation import layers_of
from tests.helpers.small_models import SIZE, attention_maps, observed_model, small_swin, small_vit

generator = torch.Generator().manual_seed(11)


def label_image(batch: int, sources: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, sources, height, width, generator=generator).softmax(1)


def images_of(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=generator)


class Shuffled(nn.Module):
    """Patches of 4, in windows of 3 x 2, rolled, merged with a class token, back to a map."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, 4)
        self.windows = nn.Linear(5, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, 7))
        self.whole = nn.LayerNorm(7)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).roll((1, 2), (2, 3)).permute(0, 2, 3, 1)
        batch, height, width, _ = x.shape
        x = x.view(batch, height // 3, 3, width // 2, 2, 5).transpose(2, 3)
        x = self.windows(x.reshape(-1, 6, 5))
        x = x.view(batch, height // 3, width // 2, 3, 2, 7).transpose(2, 3)
        x = x.reshape(batch, height, width, 7).permute(2, 1, 0, 3).flip(0)
        x = x.permute(2, 0, 1, 3).flatten(1, 2)
        return self.whole(torch.cat([self.token.expand(batch, -1, -1), x], 1)).relu()


def test_maps_are_where_tokens_came_from_in_windows_rolled_flipped_and_behind_a_class_token() -> (
    None
):
    model, images = Shuffled().eval(), images_of(2, 36, 56)
    labels = label_image(2, 3, 36, 56)
    observer = Observer(model, images)
    seen = {place.node: place for place in observer.places()}
    expected = functional.avg_pool2d(labels, 4)
    found = observer.labels(images, labels, seen)
    inner = [name for name in found if name != observer.trace.capture.traced_input]
    assert len(inner) > 12
    for name in inner:
        torch.testing.assert_close(found[name].map(), expected)
    token = found[inner[-1]].labels[:, 0]
    torch.testing.assert_close(token, labels.mean((2, 3)))
    assert (found[inner[-1]].grid.index == 0).sum() == 0  # the class token has no place


def test_labels_at_blocks_are_those_of_attention_and_residuals_written_out() -> None:
    model, images, labels = small_vit(), images_of(2, *SIZE), label_image(2, 3, *SIZE)
    maps = attention_maps(model, images)
    patches = functional.avg_pool2d(labels.double(), 4).flatten(2).mT
    tokens = torch.cat([labels.double().mean((2, 3))[:, None], patches], 1)
    found = labels_at(observed_model(small_vit), images, labels, ["blocks.*", "output"])
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2", "output"]
    for attention, name in zip(maps, found, strict=False):
        tokens = (tokens + attention @ tokens) / 2
        torch.testing.assert_close(found[name].labels, tokens.float())
        assert found[name].grid.shape == (5, 7)
    torch.testing.assert_close(found["output"].labels, tokens[:, :1].float())
    assert found["output"].grid is None
    with pytest.raises(LabelError, match=r"the 1 positions of .* form no map"):
        found["output"].map()


def test_activations_are_the_models_and_its_mode_and_buffers_stay() -> None:
    model, images = small_swin(), images_of(2, 12, 20)
    model.train()
    model.layers[1].eval()
    wanted: dict[str, Tensor] = {}
    for name in ("layers.0.blocks.1", "layers.1.downsample", "layers.0.blocks.0.attn"):
        keep = lambda module, inputs, output, name=name: wanted.setdefault(name, output)  # noqa: E731
        model.get_submodule(name).register_forward_hook(keep)
    observer = Observer(model, images)
    wanted.clear()
    blocks = ("layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0")
    assert layers_of(observer.trace) == blocks
    with torch.no_grad():
        modes = [module.training for module in model.modules()]
        model.eval()(images)
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    state = torch.random.get_rng_state()
    found = observer.activations(images, observer.find_places(list(wanted)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for name in ("layers.0.blocks.1", "layers.1.downsample"):
        torch.testing.assert_close(found[name], wanted[name].flatten(1, 2))
    windows = wanted["layers.0.blocks.0.attn"].reshape(2, 3, 5, 2, 2, -1)
    spread = {"own order": windows, "image order": windows.transpose(2, 3)}
    assert any(
        torch.allclose(found["layers.0.blocks.0.attn"], tokens.reshape(2, 60, -1))
        for tokens in spread.values()
    )


def test_labels_in_windows_belong_to_the_activations_beside_them() -> None:
    """Both are read in one order: a copy of the label image, sent through as pixels, shows it."""
    model = Shuffled().eval()
    nn.init.zeros_(model.patches.weight)
    model.patches.weight.data[:2, :2] = torch.eye(2)[:, :, None, None] / 16  # means of the pixels
    nn.init.zeros_(model.patches.bias)
    labels = label_image(2, 2, 36, 56)
    images = torch.cat([labels, torch.zeros(2, 1, 36, 56)], 1)
    observer = Observer(model, images)
    at = observer.find_places(["reshape", "view", "roll", "permute", "transpose"])
    found, values = observer.labels(images, labels, at), observer.activations(images, at)
    for name in at:
        torch.testing.assert_close(values[name][..., :2], found[name].labels)


def test_names_that_lead_nowhere_say_what_is_near() -> None:
    images, observer = images_of(2, *SIZE), observed_model(small_vit)
    with pytest.raises(LabelError, match=r"no node or module 'block\.1'.*similar names: blocks\.1"):
        observer.find_places(["block.1"])
    with pytest.raises(LabelError, match=r"given as a list of names; write \['blocks\.1'\]"):
        observer.find_places("blocks.1")
    weights = next(
        node.name
        for node in observer.trace.nodes
        if node.operation == "constant" and node.name not in observer.trace.labeled
    )
    with pytest.raises(LabelError, match="carries no label"):
        observer.find_places([weights])
    with pytest.raises(LabelError, match="make another Observer for this size"):
        observer.check_images(images[:, :, 1:])
    with pytest.raises(
        LabelError, match=r"images must be a tensor .*; stack them and normalize them as in"
    ):
        Observer(observer.model, None)
    with pytest.raises(LabelError, match=r"images must be floating point .* and not empty"):
        Observer(observer.model, images.long())
    assert [place.node for place in observer.places()] == [
        place.node for place in labeltrace.places(observer.trace)
    ]


class OfTwo(nn.Module):
    """A model of two images at a time."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1, 6).mean(1)


class Blind(nn.Module):
    """A model that does not look."""

    def forward(self, images: Tensor) -> Tensor:
        return images.new_ones(len(images), 5) * images.shape[2]


def test_what_cannot_be_observed_is_said() -> None:
    observer = Observer(OfTwo(), images_of(2, 6, 6))
    with pytest.raises(LabelError, match=r"but the model was captured for 2 to 2 images"):
        observer.check_images(images_of(3, 6, 6))
    with pytest.raises(LabelError, match="no output of the model comes from the image"):
        labels_at(Blind(), images_of(2, 6, 6), label_image(2, 3, 6, 6), ["output"])
    rows = layout.renumbered([(layout.Factor(7, layout.Kind.POSITION),), layout.channel(3)])
    with pytest.raises(LayoutError, match="the batch is not the first of these positions"):
        field_layout(rows)


def test_steps_by_themselves_read_one_tensor_and_are_of_one_size() -> None:
    trace = observed_model(small_vit).trace
    single = [field for field, step in trace.steps.items() if isinstance(step, OneSourceStep)]
    residual = [field for field, step in trace.steps.items() if isinstance(step, Average)]
    with pytest.raises(LayoutError, match="joins the labels of several tensors and mixes none"):
        isolate_steps(trace, residual[:1])
    with pytest.raises(LayoutError, match=r"these steps read fields of . sizes; isolate them one"):
        isolate_steps(trace, single)
