"""The families of models, read from two data files in this folder.

`families.json` describes each family (written by `labeltrace.models_zoo.describing`).
`measured.json` holds the results of a sweep for its smallest member (written by `labeltrace zoo
sweep --record`). Neither file is edited by hand.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torchvision.models import get_model_builder, list_models

FAMILIES_FILE = Path(__file__).with_name("families.json")
MEASURED_FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper: its title and its arXiv number, such as `"2010.11929"`."""

    title: str
    arxiv: str

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The square images that a family's smallest member accepts.

    Attributes:
        native: height and width of the images it is designed for.
        smallest: the smallest height and width at which it runs, also in train mode; the search
            tries multiples of 14 and 16, starting at 32.
        option: the argument that sets the size when the model is built; empty if the library sets
            it, or if the model accepts images of any size.
    """

    native: int
    smallest: int
    option: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one architecture.

    Attributes:
        name: the timm module that defines the models; outside timm, a name chosen here.
        source: the library of the models: timm, torchvision or transformers.
        module: the Python module that defines them.
        papers: the papers that the source's documentation cites; the family's own paper is first.
        smallest: the member with the fewest parameters, without timm's `test_` models.
        sizes: the images that it accepts.
        options: further arguments for building every member.
        counts: number of nodes by operation in the smallest member, in eval mode at the native
            size; empty until a sweep has recorded it.
        approximations: number of approximate nodes by reason; recorded with `counts`.
        measured_with: versions of the libraries; recorded with `counts`.
    """

    name: str
    source: str
    module: str
    papers: tuple[Paper, ...]
    smallest: str
    sizes: ImageSizes
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    approximations: Mapping[str, int] = field(default_factory=dict)
    measured_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all models in the installed version of the source."""
        return members_of(self.source, self.module)


@functools.cache
def families() -> tuple[Family, ...]:
    """All families: those of timm, then those of torchvision and transformers."""
    described = json.loads(FAMILIES_FILE.read_text(encoding="utf-8"))
    measured = json.loads(MEASURED_FILE.read_text(encoding="utf-8"))
    return tuple(_family(entry, measured) for entry in described)


def find(name: str) -> Family | None:
    """The family with this name, or with a member of this name; None if there is none."""
    known = families()
    by_name = (family for family in known if family.name == name)
    by_member = (family for family in known if name in family.members)
    return next(by_name, None) or next(by_member, None)


def _family(entry: dict[str, Any], measured: dict[str, Any]) -> Family:
    found = measured["members"].get(entry["smallest"])
    recorded = {**found, "measured_with": measured["versions"]} if found else {}
    details = {
        "papers": tuple(Paper(**paper) for paper in entry["papers"]),
        "sizes": ImageSizes(**entry["sizes"]),
    }
    return Family(**{**entry, **details, **recorded})


@functools.cache
def members_of(source: str, module: str) -> tuple[str, ...]:
    """The names, for `load_model`, of the models that a module defines.

    Raises:
        ValueError: there is no such source.
    """
    if source == "timm":
        return tuple(timm.list_models(module=module.rpartition(".")[2]))
    if source == "torchvision":
        names = [name for name in list_models() if get_model_builder(name).__module__ == module]
        return tuple(f"{module}:{name}" for name in names)
    if source == "transformers":
        return tuple(f"{module}:{name}" for name in importlib.import_module(module).__all__)
    raise ValueError(f"{source!r} is no source of models; choose timm, torchvision or transformers")
