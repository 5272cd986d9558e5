"""The labels and activations of a model at any of its nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from labeltrace.aligned import AlignedModule
from labeltrace.capture.capture import capture_model
from labeltrace.capture.captured import live_state
from labeltrace.errors import LabelError
from labeltrace.flow import LabelField
from labeltrace.inspection.label_program import LabelProgram, eval_mode, no_gradient
from labeltrace.inspection.places import Place, find_places, places, token_layout, with_outputs_at
from labeltrace.inspection.token_grid import (
    TokenGrid,
    coordinate_image,
    find_grid,
    without_mixing_or_overlap,
)
from labeltrace.layout import Layout, fixed_size, infer_dynamic
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import current
from labeltrace.runtime.label_checks import check_label_image
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph


@dataclass(frozen=True, eq=False, slots=True)
class NodeLabels:
    """The labels at one place.

    Attributes:
        place: the node.
        labels: (B, N, K) float32: the label of each of its N positions; rows sum to one.
        grid: the positions of the tokens in the image; None if they form no map, as in a pooled
            feature or the hidden layer of a token mixer.
    """

    place: Place
    labels: Tensor
    grid: TokenGrid | None

    def map(self) -> Tensor:
        """The labels of the tokens that have a position in the image: (B, K, rows, columns).

        Raises:
            LabelError: the tokens form no map.
        """
        if self.grid is None:
            raise LabelError(
                f"the {self.labels.shape[1]} positions of {self.place.node} form no map of the "
                "image; choose a node before they are pooled or mixed"
            )
        return self.grid.map(self.labels).movedim(-1, 1)


class Observer:
    """A model that is captured once and can then be inspected many times, in eval mode.

    The model's own mode is restored after each call.

    Args:
        model: the model, or an aligned module of it.
        images: (B, C, H, W); later images must have the same size.
        rules: as for `labeltrace.align`.

    Raises:
        LabelError: `images` are no batch of images.
        LabelTraceError: the model cannot be captured or traced.

    Attributes:
        model: the model.
        trace: its trace.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix, Observer
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(2))
        >>> batch = CutMix()(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
        >>> observer = Observer(model, batch.images)
        >>> found = observer.labels(batch.images, batch.labels, observer.find_places(["0"]))
        >>> found["0"].map().shape
        torch.Size([2, 2, 4, 4])
    """

    def __init__(
        self, model: nn.Module, images: Tensor, *, rules: Mapping[Any, Rule] | None = None
    ) -> None:
        _check_images(images)
        self.model = model.module if isinstance(model, AlignedModule) else model
        registry = current().with_overrides(rules)
        with eval_mode(self.model), torch.no_grad():
            found = capture_model(self.model, (images,), whole=registry.functions)
        self.trace: Trace = trace_graph(found, registry)
        self._sizes = tuple(images.shape[1:])

    def places(self) -> tuple[Place, ...]:
        """Every node that carries labels, in the order of the graph."""
        return places(self.trace)

    def find_places(self, names: Iterable[str]) -> dict[str, Place]:
        """The places with these names; see `labeltrace.inspection.places.find_places`."""
        return find_places(self.trace, names)

    def labels(
        self, images: Tensor, labels: Tensor, selected: Mapping[str, Place]
    ) -> dict[str, NodeLabels]:
        """The labels at selected places, by the same names.

        Args:
            images: (B, C, H, W), of the size of the captured images.
            labels: a label image (B, K, H, W) or (B, K, 1, 1).
            selected: the places, by name.

        Raises:
            LabelError: images or label image do not fit.
            LayoutError: a place mixes the images of a batch.
        """
        self.check_images(images)
        check_label_image(labels, images, 1)
        firsts = _unique_by_field(selected)
        found = self.run(with_outputs_at(self.trace, firsts.values()), images, labels)
        by_field = dict(zip(firsts, found, strict=True))
        grids = self.grids(images, selected)
        return {
            name: NodeLabels(place, by_field[place.field], grids[name])
            for name, place in selected.items()
        }

    def grids(self, images: Tensor, selected: Mapping[str, Place]) -> dict[str, TokenGrid | None]:
        """The positions of the tokens of places in the image, by name; None if they form no map."""
        firsts = _unique_by_field(selected)
        program = self.program(
            without_mixing_or_overlap(with_outputs_at(self.trace, firsts.values()))
        )
        smallest_batch = images[: max(1, self.trace.capture.batch.smallest)]
        pixels = coordinate_image(images.shape[2], images.shape[3], images.device)
        with eval_mode(self.model):
            moments = program((smallest_batch,), pixels.expand(len(smallest_batch), -1, -1, -1))
        whole = pixels[0].flatten(1).mean(1)
        found = {field: find_grid(m[0], whole) for field, m in zip(firsts, moments, strict=True)}
        return {name: found[place.field] for name, place in selected.items()}

    def program(self, trace: Trace) -> LabelProgram:
        """A modified trace as a program over the model's parameters."""
        return LabelProgram(self.model, trace)

    def run(self, trace: Trace, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The labels of a modified trace's outputs."""
        return self.run_program(self.program(trace), images, labels)

    def run_program(
        self, program: LabelProgram, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        """The labels that a program computes, with the model in eval mode."""
        with eval_mode(self.model):
            return program((images,), labels)

    def activations(self, images: Tensor, selected: Mapping[str, Place]) -> dict[str, Tensor]:
        """The tensors at places as (B, N, C), tokens in the order of their labels."""
        self.check_images(images)
        reader = _ValueReader(self.trace, {place.node for place in selected.values()})
        with eval_mode(self.model), no_gradient(self.trace.capture, images.device):
            reader.run(*live_state(self.model, self.trace.capture), images)
        return {name: _as_tokens(reader.values[p.node], p.layout) for name, p in selected.items()}

    def check_images(self, images: Tensor) -> None:
        """Check that images have the size of the captured images.

        Raises:
            LabelError: they have not, or the graph is for another batch size.
        """
        _check_images(images)
        if tuple(images.shape[1:]) != self._sizes:
            raise LabelError(
                f"images have shape {tuple(images.shape)}, the model was captured with "
                f"(B, {', '.join(map(str, self._sizes))}); make another Observer for this size"
            )
        batch = self.trace.capture.batch
        if not batch.holds_for(len(images)):
            raise LabelError(
                f"a batch of {len(images)}, but the model was captured for {batch.smallest} to "
                f"{batch.largest:g} images; make another Observer with a batch of this size "
                f"({batch.fixed_reason or 'what the model does depends on the size of the batch'})"
            )


def labels_at(
    model: nn.Module | Observer, images: Tensor, labels: Tensor, names: Iterable[str]
) -> dict[str, NodeLabels]:
    """The labels at named nodes or modules of a model, in eval mode.

    Args:
        model: the model, or an `Observer` of it for more than one call.
        images: (B, C, H, W).
        labels: a label image (B, K, H, W) or (B, K, 1, 1).
        names: names of nodes, paths of modules, patterns of paths or `"output"`; see
            `labeltrace.inspection.places.find_places`.

    Returns:
        The labels by name, in the order of the names; for a pattern, by the paths of the modules.

    Raises:
        LabelError: there is no such node or module, or images and labels do not fit.
        LabelTraceError: the model cannot be captured or traced.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix, labels_at
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(2))
        >>> batch = CutMix()(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
        >>> found = labels_at(model, batch.images, batch.labels, ["0", "output"])
        >>> found["0"].labels.shape
        torch.Size([2, 16, 2])
    """
    observer = as_observer(model, images)
    return observer.labels(images, labels, observer.find_places(names))


def as_observer(model: nn.Module | Observer, images: Tensor) -> Observer:
    """The observer itself, or a new observer of a model."""
    return model if isinstance(model, Observer) else Observer(model, images)


def _unique_by_field(selected: Mapping[str, Place]) -> dict[LabelField, Place]:
    """One place for each label field: places with the same field have the same labels."""
    return {place.field: place for place in selected.values()}


class _ValueReader(Interpreter):
    """Runs a captured graph and stores the values of some of its nodes."""

    def __init__(self, trace: Trace, wanted: set[str]) -> None:
        super().__init__(GraphModule(trace.capture.root, trace.capture.graph))
        self.wanted = wanted
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.values[n.name] = value
        return value


def _as_tokens(value: Tensor, layout: Layout) -> Tensor:
    """A tensor as (B, N, C): positions in the order of its label field, the rest as channels."""
    factors = [factor for axis in layout.axes for factor in axis]
    split = value.reshape(infer_dynamic(factor.size for factor in factors))
    (batch,), others, _ = token_layout(layout).axes
    order = [factors.index(factor) for factor in (batch, *others)]  # field_dim makes them unique
    rest = [index for index in range(len(factors)) if index not in order]
    return split.permute(*order, *rest).reshape(
        split.shape[order[0]], math.prod(fixed_size(factor.size) for factor in others), -1
    )


def _check_images(images: object) -> None:
    if not isinstance(images, Tensor):
        raise LabelError(
            f"images must be a tensor (B, C, H, W), not {type(images).__name__}; stack them and "
            "normalize them as in the model's training"
        )
    if images.dim() != 4 or not images.is_floating_point() or 0 in images.shape:
        raise LabelError(
            f"images must be floating point (B, C, H, W) and not empty, got {images.dtype} of "
            f"shape {tuple(images.shape)}; convert them with images.float() / 255"
        )
