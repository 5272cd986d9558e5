"""Snapshots: what a forward did to the state around it is told by name, and undone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labeltrace.model_state.snapshot import DifferenceKind, differences, take_snapshot
from labeltrace.model_state.state_key import StateWatch
from labeltrace.model_state.unwatched import unwatched
from tests.model_state import changing_models as models
from tests.model_state.changing_models import Holder, Reading


class Doing(nn.Module):
    """A module whose forward does something to its own state."""

    def __init__(self, act: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.act = act
        self.step = 3
        self.flag = True
        self.history: list[Any] = []
        self.losses: dict[str, Any] = {"aux": torch.zeros(())}
        self.moving = torch.zeros(3)
        self.kept = torch.zeros(2)
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))
        self.generator = torch.Generator().manual_seed(0)
        self.draws = np.random.default_rng(0)
        self.old_draws = np.random.RandomState(0)
        self.python_draws = random.Random(0)

    def forward(self, x: Tensor) -> Tensor:
        self.act(self, x)
        return x * self.weight.mean()


K = DifferenceKind
ACTS: dict[str, tuple[Callable[[Any, Tensor], object], DifferenceKind, str, str]] = {
    "counter": (
        lambda m, x: setattr(m, "step", m.step + 1),
        K.ATTRIBUTE,
        "0.inner.step",
        "attribute `step` of `0.inner` changed from 3 to 4",
    ),
    "flag": (
        lambda m, x: setattr(m, "flag", False),
        K.ATTRIBUTE,
        "0.inner.flag",
        "attribute `flag` of `0.inner` changed from True to False",
    ),
    "new attribute": (
        lambda m, x: setattr(m, "shape", tuple(x.shape)),
        K.ATTRIBUTE,
        "0.inner.shape",
        "attribute `shape` of `0.inner` is new: (2, 3)",
    ),
    "removed attribute": (
        lambda m, x: delattr(m, "flag"),
        K.ATTRIBUTE,
        "0.inner.flag",
        "attribute `flag` of `0.inner` was removed; it was True",
    ),
    "list": (
        lambda m, x: m.history.append(len(x)),
        K.ATTRIBUTE,
        "0.inner.history",
        "attribute `history` of `0.inner` changed from 0 items () to 1 items (2)",
    ),
    "kept tensor": (
        lambda m, x: setattr(m, "kept", x.sum()),
        K.TENSOR,
        "0.inner.kept",
        "tensor `kept` of `0.inner` has other values or another form",
    ),
    "kept tensor of the same values": (
        lambda m, x: setattr(m, "kept", m.kept * 1),
        K.TENSOR,
        "0.inner.kept",
        "tensor `kept` of `0.inner` is another tensor of the same values",
    ),
    "kept tensor in a dict": (
        lambda m, x: m.losses.update(aux=x.mean()),
        K.TENSOR,
        "0.inner.losses['aux']",
        "tensor `losses['aux']` of `0.inner` has other values or another form",
    ),
    "updated tensor": (
        lambda m, x: m.moving.add_(1),
        K.TENSOR,
        "0.inner.moving",
        "tensor `moving` of `0.inner` has other values or another form",
    ),
    "buffer": (
        lambda m, x: m.mean.add_(1),
        K.BUFFER,
        "0.inner.mean",
        "buffer `mean` of `0.inner` has other values or another form",
    ),
    "buffer that is bound anew": (
        lambda m, x: setattr(m, "mean", m.mean + 1),
        K.BUFFER,
        "0.inner.mean",
        "buffer `mean` of `0.inner` has other values or another form",
    ),
    "parameter": (
        lambda m, x: m.weight.data.mul_(2),
        K.PARAMETER,
        "0.inner.weight",
        "parameter `weight` of `0.inner` has other values or another form",
    ),
    "resized buffer": (
        lambda m, x: m.mean.resize_(5),
        K.BUFFER,
        "0.inner.mean",
        "buffer `mean` of `0.inner` has other values or another form",
    ),
    "python": (lambda m, x: random.random(), K.GENERATOR, "random", "`random` advanced"),
    "numpy": (lambda m, x: np.random.rand(), K.GENERATOR, "numpy.random", "`numpy.random` adv"),
    "torch": (lambda m, x: torch.rand(1), K.GENERATOR, "torch", "`torch` advanced"),
    "own generator of torch": (
        lambda m, x: torch.rand(1, generator=m.generator),
        K.GENERATOR,
        "0.inner.generator",
        "random generator `0.inner.generator` advanced",
    ),
    "own generator of numpy": (
        lambda m, x: m.draws.random(),
        K.GENERATOR,
        "0.inner.draws",
        "`0.inner.draws` advanced",
    ),
    "own old generator of numpy": (
        lambda m, x: m.old_draws.rand(),
        K.GENERATOR,
        "0.inner.old_draws",
        "`0.inner.old_draws` advanced",
    ),
    "own generator of Python": (
        lambda m, x: m.python_draws.random(),
        K.GENERATOR,
        "0.inner.python_draws",
        "`0.inner.python_draws` advanced",
    ),
    "hook": (
        lambda m, x: m.register_forward_hook(models.counted),
        K.HOOK,
        "0.inner._forward_hooks[",
        "hook `_forward_hooks[",
    ),
    "global": (
        lambda m, x: models.counted(x),
        K.GLOBAL,
        "tests.model_state.changing_models.COUNTED",
        "global `tests.model_state.changing_models.COUNTED` changed from 0 to 1",
    ),
    "dict in a global": (
        lambda m, x: models.TABLE["a"].update(b=6),
        K.GLOBAL,
        "tests.model_state.changing_models.TABLE['a']['b']",
        "global `['a']['b']` of `tests.model_state.changing_models.TABLE` changed from 5 to 6",
    ),
    "class attribute": (
        lambda m, x: setattr(models.Shared, "amount", 6),
        K.ATTRIBUTE,
        "tests.model_state.changing_models.Shared.amount",
        "attribute `amount` of `tests.model_state.changing_models.Shared` changed from 5 to 6",
    ),
    "new class attribute": (
        lambda m, x: setattr(models.Shared, "added", 6),
        K.ATTRIBUTE,
        "tests.model_state.changing_models.Shared.added",
        "is new: 6",
    ),
    "class": (
        lambda m, x: (
            setattr(m, "__class__", models.Helper)
            if False
            else object.__setattr__(m, "__class__", Other)
        ),
        K.ATTRIBUTE,
        "0.inner.__class__",
        "changed from `Doing` to `Other`",
    ),
}


class Other(Doing):
    pass


@pytest.fixture(autouse=True)
def _restore_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "COUNTED", 0)


@pytest.mark.parametrize("name", ACTS)
def test_what_forward_did_is_named_and_undone(name: str) -> None:
    act, kind, path, words = ACTS[name]
    model = nn.Sequential(nn.Sequential())
    model[0].inner = Doing(act)
    x = torch.rand(2, 3)
    watch = StateWatch(model)
    key, before = watch.key(), take_snapshot(model)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = dict(vars(model[0].inner))
    model(x)
    (found,) = differences(before, take_snapshot(model))
    assert found.kind is kind
    assert found.path.startswith(path) and words in found.text
    before.restore()
    assert not differences(before, take_snapshot(model))
    assert vars(model[0].inner) == attributes
    assert list(vars(model[0].inner)) == list(attributes)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in values.items())
    assert watch.key() == key


def test_a_forward_that_does_nothing() -> None:
    model = Holder().eval()
    x = torch.rand(2, 3, 7, 7)
    before = take_snapshot(model)
    model(x)
    assert not differences(before, take_snapshot(model))


def test_a_run_can_be_repeated() -> None:
    """Two runs from one state end in the same state, though the kept tensors are others."""

    def act(module: Any, x: Tensor) -> None:
        module.step += 1
        module.losses["aux"] = x.mean() * float(np.random.rand()) * random.random()
        module.moving.add_(torch.rand(3, generator=module.generator))
        module.mean += module.draws.random()
        module.history.append({"loss": module.losses["aux"]})

    model = Doing(act)
    before = take_snapshot(model)
    first = model(torch.ones(2, 3))
    after = take_snapshot(model)
    assert len(differences(before, after)) == 9
    before.restore()
    second = model(torch.ones(2, 3))
    again = take_snapshot(model)
    assert torch.equal(first, second)
    assert not differences(after, again, rebound=False)
    assert {found.path for found in differences(after, again)} == {
        "losses['aux']",
    }


def test_a_restored_tensor_is_the_same_for_autograd() -> None:
    """Neither a graph that saved the tensor nor `.grad` notices."""
    model = Doing(lambda m, x: m.weight.data.add_(1))
    loss = model(torch.ones(2, 3)).square().sum()
    before = take_snapshot(model)
    grad = model.weight.grad = torch.ones(3)
    model(torch.ones(2, 3))
    before.restore()
    loss.backward()
    assert model.weight.grad is grad


def test_globals_that_come_and_go() -> None:
    model = Reading()
    before = take_snapshot(model)
    was = models.INNER
    del models.INNER
    models.float = int  # type: ignore[attr-defined]
    found = {
        difference.path.rpartition(".")[2]
        for difference in differences(before, take_snapshot(model))
    }
    before.restore()
    assert found == {"INNER", "float"}
    assert was == models.INNER and not hasattr(models, "float")


def test_restoring_draws_the_same_numbers() -> None:
    model = Reading()
    x = torch.rand(3)
    before = take_snapshot(model)
    first = model(x).tolist(), random.random(), np.random.rand(), torch.rand(1).item()
    before.restore()
    second = model(x).tolist(), random.random(), np.random.rand(), torch.rand(1).item()
    assert first == second


@pytest.mark.parametrize("form", ["expanded", "inference", "sparse", "complex", "meta", "empty"])
def test_tensors_of_other_forms(form: str) -> None:
    model = nn.ReLU()
    with torch.inference_mode(form == "inference"):
        tensor = {
            "expanded": lambda: torch.ones(3, 1).expand(3, 5),
            "inference": lambda: torch.ones(3),
            "sparse": lambda: torch.ones(3, 5).to_sparse(),
            "complex": lambda: torch.ones(3, dtype=torch.complex64).conj(),
            "meta": lambda: torch.ones(3, device="meta"),
            "empty": lambda: torch.ones(0),
        }[form]()
    model.tensor = tensor  # type: ignore[assignment]
    watch = StateWatch(model)
    key, before = watch.key(), take_snapshot(model)
    assert watch.key() == key and not differences(before, take_snapshot(model))
    if form in ("meta", "empty"):
        model.tensor = torch.ones(5)  # type: ignore[assignment]
    else:
        with torch.inference_mode(form == "inference"):
            (tensor[:, :1] if form == "expanded" else tensor).mul_(2)
    (found,) = differences(before, take_snapshot(model))
    assert found.kind is K.TENSOR
    before.restore()
    assert model.tensor is tensor and not differences(before, take_snapshot(model))
    if form != "meta":
        dense = tensor.to_dense() if form == "sparse" else tensor
        assert torch.equal(dense, torch.ones_like(dense))


def test_what_cannot_be_watched_is_told() -> None:
    model = nn.Sequential(nn.ReLU())
    model[0].schedule = [iter([1, 2])]
    model[0].large = np.zeros(10_000)
    model[0].small = np.zeros(10)
    assert unwatched(model) == (
        "`0.large` is a numpy array of 80000 bytes: writes to it cannot be seen",
        "`0.schedule[0]` is an iterator (list_iterator): its position cannot be seen",
    )
