"""First calls from several threads at a time; what the process can do afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.runtime.engine_choice import EngineName
from tests.true_to_model.case import PATCH, WIDTH, Patches, pictures
from tests.true_to_model.engines import ENGINES
from tests.true_to_model.label_contract import label_image

THREADS = 5


def _model() -> nn.Module:
    """It reads its input's size and its values, and has a layer that is not registered."""
    layers = [nn.Conv2d(WIDTH, WIDTH, 1)]
    return Patches(lambda self, x: self.layers[0](x).relu() * x.shape[0], layers=layers).eval()


def _at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that start at the same time, each in a thread of its own."""
    barrier = Barrier(len(calls))

    def start(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(start, calls))


def _check(model: nn.Module, image: Tensor, outputs: Tensor, labels: Tensor) -> None:
    assert torch.equal(outputs, model(image))
    expected = F.avg_pool2d(label_image(image), PATCH)
    torch.testing.assert_close(labels, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_an_aligned_model(engine: EngineName) -> None:
    model = _model()
    aligned = labeltrace.align(model, engine=engine)
    batches = [pictures(index, batch=1 + index % 3) for index in range(THREADS)]
    found = _at_once([lambda x=x: aligned(x, label_image(x)) for x in batches])  # type: ignore[misc]
    for image, (outputs, labels) in zip(batches, found, strict=True):
        _check(model, image, outputs, labels)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_thread_aligns_a_model_of_its_own(engine: EngineName) -> None:
    models = [_model() for _ in range(THREADS)]
    image = pictures(3)

    def call(model: nn.Module) -> Any:
        return labeltrace.align(model, engine=engine)(image, label_image(image))

    found = _at_once([lambda model=model: call(model) for model in models])  # type: ignore[misc]
    for model, (outputs, labels) in zip(models, found, strict=True):
        _check(model, image, outputs, labels)
    copied = copy.deepcopy(models[0])  # and the process can still do all of it
    outputs, labels = labeltrace.align(copied, engine=engine)(image, label_image(image))
    _check(models[0], image, outputs, labels)
    torch.export.export(nn.Linear(3, 2), (torch.rand(2, 3),))


@pytest.mark.parametrize("engine", ENGINES)
def test_plain_calls_meanwhile_are_not_recorded(engine: EngineName) -> None:
    """One thread calls with labels, others use the same model without."""
    model = _model()
    aligned = labeltrace.align(model, engine=engine)
    image = pictures(3)
    calls: list[Callable[[], Any]] = [lambda: aligned(image, label_image(image))]
    calls += [lambda: [model(image) for _ in range(20)] for _ in range(THREADS)]
    (outputs, labels), *others = _at_once(calls)
    _check(model, image, outputs, labels)
    assert all(torch.equal(other, outputs) for found in others for other in found)
