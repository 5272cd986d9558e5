"""Label fields, by the node that computes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LabelField:
    """The label field that a node's step computes, or that of the input.

    `node` is the node's name in the captured graph, `output` the index of the node's output.
    """

    node: str
    output: int = 0
