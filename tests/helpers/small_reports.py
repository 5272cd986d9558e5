"""Reports of small models, made once for all tests, and how to read them."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from labeltrace.model_loading import LoadedModel
from labeltrace.photographs import mix_photographs, normalize, sample_photographs
from labeltrace.report import Report, build_report
from tests.helpers.small_models import SIZES, seeded


class MaximaOfTokens(nn.Module):
    """Patches in a module called twice, a hidden layer of token mixing, the largest of all."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, 4)
        self.act = nn.GELU()
        self.mix = nn.Sequential(nn.Linear(35, 11), nn.GELU(), nn.Linear(11, 35))

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.patches(images)).flatten(2)
        return self.act(x + self.mix(x)).amax(2)


def loaded(make: Callable[[], nn.Module]) -> LoadedModel:
    return LoadedModel(make(), (3, *SIZES.get(make, (20, 28))))


def maxima_of_tokens() -> nn.Module:
    return seeded(MaximaOfTokens)


@functools.cache
def report_of(make: Callable[[], nn.Module]) -> Report:
    model = loaded(make)
    photographs = sample_photographs(model.input_size[1:])
    quiet = Progress(disable=True)
    return build_report(
        make.__name__, model, photographs, weights="Random weights.", progress=quiet
    )


def document(make: Callable[[], nn.Module]) -> dict[str, Any]:
    return json.loads(report_of(make).json())


@functools.cache
def images_and_labels(make: Callable[[], nn.Module]) -> tuple[Tensor, Tensor]:
    model = loaded(make)
    batch = mix_photographs(sample_photographs(model.input_size[1:]))
    return normalize(batch.images, model.mean, model.std), batch.labels


def levels(packed: dict[str, Any]) -> Tensor:
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(packed["shape"])


def shares(sources: dict[str, Any]) -> Tensor:
    roots = levels(sources["cells"]).double() / 255
    return roots.square() * torch.tensor(sources["peaks"]).double()[:, None, None]


def node_named(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (node for node in report["nodes"] if node["name"] == name)
    return found
