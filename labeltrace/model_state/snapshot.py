"""A copy of all Python state of a model, which can be put back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from labeltrace.model_state.difference import Difference, DifferenceKind
from labeltrace.model_state.differences import differences
from labeltrace.model_state.generators import GeneratorState, global_generators
from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.nodes import Part
from labeltrace.model_state.parts import holds_objects
from labeltrace.model_state.paths import path_of
from labeltrace.model_state.survey import Survey
from labeltrace.model_state.tensor_values import TensorValue

__all__ = ["Difference", "DifferenceKind", "Snapshot", "differences", "take_snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a model and of the random generators at one moment; see `take_snapshot`.

    Attributes:
        survey: every place that was read, with what it held.
        classes: the class of each module and plain object, and the names in each class.
        tensors: the values of all tensors, by the number of their node.
        arrays: copies of numpy arrays and bytearrays, by the number of their node.
        generators: the states of all random generators, by name.
    """

    survey: Survey
    classes: dict[int, Any]
    tensors: dict[int, TensorValue]
    arrays: dict[int, Any]
    generators: dict[str, GeneratorState]

    def restore(self) -> None:
        """Put everything back, in place: the same objects hold what they held.

        Values of tensors are written without autograd, and only where they changed; `.grad` is
        left alone.
        """
        with torch.no_grad(), torch._C.DisableTorchFunction():
            self._restore_classes()
            for container in self.survey.empties:
                if container:
                    container.clear()
            for node in self.survey.nodes:
                for part in node.parts:
                    _restore_part(part)
            for value in self.tensors.values():
                value.restore()
            for number, content in self.arrays.items():
                _restore_array(self.survey.nodes[number].value, content)
        for state in self.generators.values():
            state.restore()

    def _restore_classes(self) -> None:
        for number, known in self.classes.items():
            value = self.survey.nodes[number].value
            if self.survey.nodes[number].kind is not Kind.CLASS:
                if type(value) is not known:
                    object.__setattr__(value, "__class__", known)
                continue
            for name in set(vars(value)) - known:
                if not name.startswith("__"):
                    type.__delattr__(value, name)


def take_snapshot(model: nn.Module) -> Snapshot:
    """Copy the state that a model's forward can see or change, level by level.

    The copy has the contents of all attributes, containers, plain objects, closures and globals
    that `labeltrace.model_state.survey` meets, the values of all tensors and arrays in them, and
    the states of the random generators: torch's, also on the model's devices, Python's `random`,
    numpy's if numpy has been imported, and all that attributes or globals hold.

    It takes as long as a walk over the model and a copy of its parameters.

    Examples:
        >>> model = nn.Sequential(nn.Dropout(0.5))
        >>> snapshot = take_snapshot(model)
        >>> model[0].p = 0.9
        >>> snapshot.restore()
        >>> model[0].p
        0.5
    """
    with torch.no_grad(), torch._C.DisableTorchFunction():
        survey = Survey(model)
        classes: dict[int, Any] = {}
        tensors: dict[int, TensorValue] = {}
        arrays: dict[int, Any] = {}
        held: dict[int, str] = {}
        for number, node in enumerate(survey.nodes):
            if node.kind is Kind.MODULE or node.kind is Kind.OBJECT:
                classes[number] = type(node.value)
            elif node.kind is Kind.CLASS:
                classes[number] = frozenset(vars(node.value))
            elif node.kind is Kind.TENSOR:
                tensors[number] = TensorValue.of(node.value)
            elif node.kind is Kind.BYTES or (
                node.kind is Kind.ARRAY and not holds_objects(node.value)
            ):
                arrays[number] = copy.copy(node.value)
            elif node.kind is Kind.GENERATOR:
                held[number] = path_of(survey, number)
    devices = {value.tensor.device for value in tensors.values()}
    generators = global_generators(devices)
    known = set(map(id, generators.values()))
    for number, path in held.items():
        if id(survey.nodes[number].value) not in known:
            generators[path] = survey.nodes[number].value
    states = {name: GeneratorState.of(name, found) for name, found in generators.items()}
    return Snapshot(survey, classes, tensors, arrays, states)


def _restore_part(part: Part) -> None:
    """Write a place back if it changed."""
    labels, values = part.store.read()
    if len(values) == len(part.values):
        same = all([a is b for a, b in zip(values, part.values, strict=True)])
        if same and all([a is b or a == b for a, b in zip(labels, part.labels, strict=True)]):
            return
    part.store.write(part.labels, part.values)


def _restore_array(value: Any, content: Any) -> None:
    if isinstance(value, bytearray) or type(value).__module__ == "array":
        value[:] = content
    elif value.shape == content.shape and value.flags.writeable:
        value[...] = content
