"""What is known of each family of models, read from the data files beside this one.

`families.json` says what a family is (written by `labeltrace.models_zoo.describing`),
`measured.json` what a sweep found on its smallest member (written by `labeltrace zoo sweep
--record`).  Nothing in either is typed by hand.
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
    """A paper by its title and its number on arXiv, `"2010.11929"`."""

    title: str
    arxiv: str

    @property
    def address(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The square images that a family's smallest member takes.

    Attributes:
        native: height and width of the images it is made for.
        smallest: the smallest height and width at which it runs, in train mode too; the search
            tries the multiples of 14 and of 16 from 32 on.
        option: the argument that sets the size when the model is made; empty where the library
            does it by itself, or where the model takes images of any size.
    """

    native: int
    smallest: int
    option: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one architecture.

    Attributes:
        name: the module of timm's that has them, or a name of our own outside timm.
        source: the library that they come from: timm, torchvision or transformers.
        module: the Python module that defines them.
        papers: those that the source's own documentation cites, the family's own first.
        smallest: the member with the fewest parameters, timm's `test_` models aside.
        sizes: the images that it takes.
        options: further arguments with which every member is made.
        counts: how many of its nodes do what, as measured in eval mode at the native size; empty
            until a sweep has recorded it.
        approximations: the number of approximate nodes by their reason, likewise.
        measured_with: the versions with which this was measured, likewise.
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
        """The names of all models, as the installed version of the source lists them."""
        return members_of(self.source, self.module)


@functools.cache
def families() -> tuple[Family, ...]:
    """All families: those of timm, then those of torchvision and transformers."""
    described = json.loads(FAMILIES_FILE.read_text(encoding="utf-8"))
    measured = json.loads(MEASURED_FILE.read_text(encoding="utf-8"))
    return tuple(_family(entry, measured) for entry in described)


def find(name: str) -> Family | None:
    """The family of this name, or with a member of this name; None where there is none."""
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
    """The names of the models that a module defines, as `load_model` takes them.

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
    raise ValueError(f"{source!r} is no source of models: timm, torchvision, transformers")
