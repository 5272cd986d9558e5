"""Gradient checkpointing: an aligned model stores and computes what the plain one does."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint as torch_checkpoint
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

import labeltrace
from labeltrace.capture.checkpoint_tags import tag_checkpoint_calls
from labeltrace.codegen.checkpointing import CheckpointedRegion
from labeltrace.codegen.generate import generate

IMAGES = torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(1))
LABELS = torch.rand(5, 2, 28, 28, generator=torch.Generator().manual_seed(2)).softmax(1)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Mixed(nn.Module):
    """Attention and an MLP whose block is run by `call`, as models run theirs."""

    def __init__(self, call: Callable[..., Tensor], dropout: float = 0.1) -> None:
        super().__init__()
        self.call = call
        self.embed = nn.Conv2d(3, 12, 7, 7)
        self.qkv = nn.ModuleList(nn.Linear(12, 36) for _ in range(3))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 12))
            for _ in range(3)
        )
        self.head = nn.Linear(12, 7)
        self.dropout = dropout

    def block(self, x: Tensor, index: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=index == 1):
            query, key, value = self.qkv[index](x).float().chunk(3, dim=2)
        scores = (query @ key.transpose(1, 2)).softmax(dim=2)
        weights = F.dropout(scores, self.dropout, self.training)  # labels read it before dropout
        x = x + weights @ value
        return x + self.mlp[index](x)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        for index in range(3):
            x = self.call(self.block, x, index)
        return self.head(x.mean(1))


def plainly(function: Callable[..., Tensor], *args: Any) -> Tensor:
    return function(*args)


def selecting() -> Any:
    """Contexts that keep the results of matrix products and compute all others again."""

    def policy(context: object, operator: object, *args: object, **kwargs: object) -> Any:
        kept = operator in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


CALLS = {
    "non-reentrant": functools.partial(checkpoint, use_reentrant=False),
    "reentrant": functools.partial(checkpoint, use_reentrant=True),
    "without random state": functools.partial(
        checkpoint, use_reentrant=False, preserve_rng_state=False
    ),
    "selective": functools.partial(checkpoint, use_reentrant=False, context_fn=selecting),
    "nested": lambda function, *args: checkpoint(
        lambda *inner: checkpoint(function, *inner, use_reentrant=False), *args, use_reentrant=False
    ),
    "sequential": lambda function, x, index: checkpoint_sequential(
        [functools.partial(function, index=index)], 1, x, use_reentrant=False
    ),
}


def step(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Everything that one training step changes or returns, by name."""
    torch.manual_seed(3)
    module.zero_grad()
    result = module(*inputs)
    outputs, *labels = result if isinstance(result, tuple) else (result,)
    outputs.square().sum().backward()
    left = {"outputs": outputs.detach(), "random state": torch.get_rng_state()}
    left |= {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    left |= dict(module.named_buffers())
    return left | ({"labels": labels[0]} if labels else {})


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() - {"labels"} == expected.keys() - {"labels"}
    assert [name for name in found.keys() & expected if not found[name].equal(expected[name])] == []


@pytest.mark.parametrize("how", CALLS)
def test_a_step_equals_that_of_the_plain_model(how: str) -> None:
    dropout = 0.0 if how == "without random state" else 0.1
    model = Mixed(CALLS[how], dropout)
    aligned = labeltrace.align(model)
    found = step(aligned, IMAGES, LABELS)
    assert_equal(found, step(model, IMAGES))
    model.call = plainly
    assert_equal(found, step(labeltrace.align(model), IMAGES, LABELS))  # labels as well


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within this context held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self.alive:
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, storage._cdata)
        return result

    def _free(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def saved_bytes(module: nn.Module, *inputs: Tensor) -> int:
    """The bytes that a forward pass stores for the backward pass, without parameters."""
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(*inputs)
    del result
    return sum(stored.values())


def peak_bytes(module: nn.Module, *inputs: Tensor) -> int:
    module.zero_grad()
    with Peak() as peak:
        result = module(*inputs)
        outputs = result[0] if isinstance(result, tuple) else result
        outputs.sum().backward()
    return peak.most


def test_memory_stays_that_of_the_plain_model() -> None:
    model = VisionTransformer(
        img_size=28, patch_size=2, embed_dim=24, depth=7, num_heads=3, num_classes=5,
        attn_drop_rate=0.1, drop_path_rate=0.1,
    )  # fmt: skip
    aligned = labeltrace.align(model, IMAGES)
    stored_without, peak_without = saved_bytes(model, IMAGES), peak_bytes(model, IMAGES)
    model.set_grad_checkpointing()
    aligned(IMAGES, LABELS)  # captured again
    assert saved_bytes(aligned, IMAGES, LABELS) == saved_bytes(model, IMAGES) < stored_without / 9
    plain = peak_bytes(model, IMAGES)
    assert plain < peak_without / 3  # else there would be nothing to keep
    assert peak_bytes(aligned, IMAGES, LABELS) < 1.05 * plain


def test_label_steps_are_not_run_again() -> None:
    trace = labeltrace.trace(Mixed(CALLS["non-reentrant"]), IMAGES)
    module = generate(trace).module
    regions = [part for part in module.modules() if isinstance(part, CheckpointedRegion)]
    assert len(regions) == 3
    for region in regions:
        first, recompute = targets(region.first), targets(region.recompute)
        labels = [target for target in first if target.startswith("labeltrace.")]
        assert "labeltrace.label_ops.spatial_mixing.mix" in labels
        assert recompute == [target for target in first if target not in labels]


def targets(module: GraphModule) -> list[str]:
    """The functions that a graph calls, in their order."""
    called: list[Any] = [node.target for node in module.graph.nodes if node.op == "call_function"]
    return [f"{target.__module__}.{target.__name__}" for target in called]


def test_torch_still_checkpoints_by_the_names_that_are_tagged() -> None:
    names = {"_checkpoint_without_reentrant_generator", "CheckpointFunction"}
    assert names <= vars(torch_checkpoint).keys()
    before = dict(vars(torch_checkpoint))
    with tag_checkpoint_calls() as calls:
        assert checkpoint(torch.sin, IMAGES, use_reentrant=True).equal(IMAGES.sin())
        assert checkpoint(torch.sin, IMAGES, use_reentrant=False, debug=True).equal(IMAGES.sin())
        with pytest.raises(ZeroDivisionError):
            checkpoint(lambda: 1 / 0, use_reentrant=False)
        checkpoint(torch.sin, IMAGES, use_reentrant=True, preserve_rng_state=False)
    assert vars(torch_checkpoint) == before
    assert list(calls.values()) == [{}, {"debug": True}, {}, {"preserve_rng_state": False}]


class Convolved(nn.Module):
    """Everything up to the head is checkpointed."""

    def __init__(self, normalization: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 7, 7), normalization, nn.ReLU(True))
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(checkpoint(self.inner, images, use_reentrant=False).mean((2, 3)))


def test_a_batch_norm_counts_as_in_the_plain_model() -> None:
    """Its statistics move in both runs, as those of the plain model do."""
    plain, model = Convolved(nn.BatchNorm2d(4)), Convolved(nn.BatchNorm2d(4))
    model.load_state_dict(plain.state_dict())
    aligned = labeltrace.align(model)
    for _ in range(2):
        assert_equal(step(aligned, IMAGES, LABELS), step(plain, IMAGES))
    assert aligned.inner[1].num_batches_tracked == plain.inner[1].num_batches_tracked


class PartlyInAutocast(nn.Module):
    """A checkpointed function that begins or ends under autocast.

    At its end, the last value that the backward pass needs is there before autocast is left.
    """

    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half
        self.parts = nn.ModuleList([nn.Conv2d(3, 4, 7, 7), nn.Conv2d(4, 5, 1)])

    def inner(self, x: Tensor) -> Tensor:
        for index, part in enumerate(self.parts):
            with torch.autocast("cpu", torch.bfloat16) if index == self.half else nullcontext():
                x = part(x if index == self.half else x.float())
        return x

    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(self.inner, images, use_reentrant=False).float().mean((2, 3))


@pytest.mark.parametrize("half", [0, 1])
def test_autocast_is_left_as_often_as_it_is_entered(half: int) -> None:
    model = PartlyInAutocast(half)
    aligned = labeltrace.align(model)
    for _ in range(2):  # a cast weight that stays in autocast's cache would miss this update
        assert_equal(step(aligned, IMAGES, LABELS), step(model, IMAGES))
        torch.autocast_increment_nesting()
        assert torch.autocast_decrement_nesting() == 0
        assert not torch.is_autocast_enabled("cpu")
        with torch.no_grad():
            model.parts[half].weight += 1


def test_a_compiler_sees_the_regions() -> None:
    model = Convolved(nn.Identity())
    trace = labeltrace.trace(model, IMAGES)
    module = generate(trace).module
    state = [model.get_parameter(entry.name) for entry in trace.capture.state]
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for run in (compiled, module):
        model.zero_grad()
        outputs, labels = run(*state, IMAGES, LABELS)
        outputs.square().sum().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters()}
        if run is compiled:
            expected, by_compiler = found, labels
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(labels, by_compiler)


def test_hugging_face_models_are_checkpointed_in_their_own_way() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        image_size=28, patch_size=7, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
        intermediate_size=48,
    )  # fmt: skip
    model = ViTModel(config, add_pooling_layer=False).train()
    aligned = labeltrace.align(model, IMAGES)
    stored_without = saved_bytes(model, IMAGES)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    aligned(IMAGES, LABELS)
    plain = saved_bytes(model, IMAGES)
    assert plain < stored_without / 3
    assert saved_bytes(aligned, IMAGES, LABELS) < 1.01 * plain
