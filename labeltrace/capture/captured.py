"""The record of a captured model: its graph, and how the graph meets the model's own call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.fx
from torch import nn
from torch.utils._pytree import TreeSpec

from labeltrace.capture.batch import BatchPolicy, Calls
from labeltrace.capture.checkpoint_tags import Settings
from labeltrace.capture.function_tags import Function


class CallTags(NamedTuple):
    """What the tags on nodes refer to, by tag.

    Attributes:
        functions: the Python functions that have a rule.
        checkpoints: the settings of checkpointed calls.
    """

    functions: Mapping[str, Function]
    checkpoints: Mapping[str, Settings]


@dataclass(frozen=True, slots=True)
class StateInput:
    """A placeholder of the graph that takes a parameter or buffer, by its qualified name."""

    placeholder: str
    name: str


@dataclass(frozen=True, slots=True)
class Capture:
    """A model's graph, and how its placeholders and outputs meet the model's own call.

    Attributes:
        graph: ATen operators.  Its placeholders are, in this order, one for each of `state`, for
            each of `constants` and for each leaf of `(args, kwargs)`.
        root: the module that holds what the graph's `get_attr` nodes name.
        state: the parameters and buffers that the graph reads.
        constants: tensors that the model made while it was captured.
        traced_input: the placeholder of the leaf that carries labels.
        channel_dim: the channel axis of that leaf, counted from the front.
        input_spec: the structure of `(args, kwargs)`.
        output_spec: the structure of what the model returns.
        batch: the sizes of the batch for which the graph holds.
        switches_modes: whether the graph has regions under autocast or another gradient mode.
        module_types: the class of each submodule by its name.
        functions: the Python functions that have a rule, by the tag of each call.
        checkpoints: the settings of each checkpointed call, by its tag.
        calls: the operators that were recorded.  A later call with one sample compares its own
            graph with them, since passes have edited `graph` by then.
    """

    graph: torch.fx.Graph
    root: nn.Module
    state: tuple[StateInput, ...]
    constants: tuple[Any, ...]
    traced_input: str
    channel_dim: int
    input_spec: TreeSpec
    output_spec: TreeSpec
    batch: BatchPolicy
    switches_modes: bool
    module_types: Mapping[str, type]
    functions: Mapping[str, Function]
    checkpoints: Mapping[str, Settings]
    calls: Calls


def live_state(model: nn.Module, found: Capture) -> Iterator[Any]:
    """The arguments of a captured graph before its inputs: parameters, buffers, constants.

    They are read from the live model.  This runs at every call: each module is looked up once, not
    for each of its parameters.
    """
    modules = {"": model}
    for entry in found.state:
        path, _, name = entry.name.rpartition(".")
        yield getattr(_module_at(path, modules), name)
    yield from found.constants


def _module_at(path: str, known: dict[str, nn.Module]) -> nn.Module:
    """The module of a qualified name; it and its parents are added to the known ones."""
    if path not in known:
        parent, _, name = path.rpartition(".")
        known[path] = getattr(_module_at(parent, known), name)
    return known[path]
