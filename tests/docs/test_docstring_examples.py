"""The examples in docstrings run and print what they show; the public names have one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import labeltrace

ROOT = Path(__file__).parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Every module that has an example."""
    names: list[str] = []
    for folder in ("labeltrace", "rules", "models_zoo"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in file.read_text(encoding="utf-8"):
                parts = file.relative_to(ROOT).with_suffix("").parts
                parts = parts if parts[0] == "labeltrace" else ("labeltrace", *parts)
                names.append(".".join(part for part in parts if part != "__init__"))
    return names


def test_examples_are_found() -> None:
    assert len(modules()) >= 10, "examples have moved to where this test does not look"


@pytest.mark.parametrize("name", modules())
def test_examples_print_what_they_show(name: str) -> None:
    torch.manual_seed(0)
    tested = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert tested.attempted and not tested.failed


FUNCTIONS = [
    name
    for name in labeltrace.__all__
    if callable(getattr(labeltrace, name)) and not isinstance(getattr(labeltrace, name), type)
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(labeltrace, name).__doc__ or "")
