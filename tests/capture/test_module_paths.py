"""Paths of modules: what lies in what, and which patterns they match."""

from __future__ import annotations

import pytest

from labeltrace.capture.module_paths import is_named, lies_in, lies_in_named


@pytest.mark.parametrize(
    ("path", "module", "inside"),
    [
        ("blocks.1", "", True),
        ("", "", True),
        ("", "blocks", False),
        ("blocks.1", "blocks.1", True),
        ("blocks.1.attn", "blocks.1", True),
        ("blocks.11", "blocks.1", False),
        ("blocks.1", "blocks.1.attn", False),
        ("head", "blocks", False),
    ],
)
def test_inside_a_module(path: str, module: str, inside: bool) -> None:
    assert lies_in(path, module) is inside


@pytest.mark.parametrize(
    ("path", "pattern", "named", "inside"),
    [
        ("blocks.1", "blocks.*", True, True),
        ("blocks.1.attn", "blocks.*", False, True),
        ("blocks", "blocks.*", False, False),
        ("blocks.1.attn", "blocks.*.attn", True, True),
        ("blocks.1.mlp", "blocks.*.attn", False, False),
        ("stem.conv", "blocks.*", False, False),
    ],
)
def test_patterns(path: str, pattern: str, named: bool, inside: bool) -> None:
    assert is_named(path, pattern) is named
    assert lies_in_named(path, pattern) is inside
