"""Looking inside: the labels and activations of a model at any of its nodes."""

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
from labeltrace.inspection.label_program import LabelProgram, evaluating, without_gradient
from labeltrace.inspection.places import Place, places, places_named, tokens, with_outputs_at
from labeltrace.inspection.token_grid import (
    TokenGrid,
    coordinates,
    grid_from,
    without_mixing_or_overlap,
)
from labeltrace.layout import Layout, infer_dynamic
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import current
from labeltrace.runtime.label_checks import check_label_image
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph


@dataclass(frozen=True, eq=False, slots=True)
class NodeLabels:
    """The labels at one place.

    Attributes:
        place: which node it is.
        labels: (B, N, K) float32: the label of each of its N positions, rows sum to one.
        grid: where the tokens lie in the image; None where they form no map, as those of a
            pooled feature or of a token mixer's hidden layer.
    """

    place: Place
    labels: Tensor
    grid: TokenGrid | None

    def map(self) -> Tensor:
        """The labels of the tokens that lie in the image: (B, K, rows, columns).

        Raises:
            LabelError: the tokens form no map.
        """
        if self.grid is None:
            raise LabelError(
                f"the {self.labels.shape[1]} positions of {self.place.node} form no map of the "
                "image; choose a place before they are pooled or mixed away"
            )
        return self.grid.map(self.labels).movedim(-1, 1)


class Observer:
    """A model captured once, to be looked at in eval mode as often as one likes.

    The model's own mode is put back after each look.

    Args:
        model: the model, or an aligned module of it.
        images: (B, C, H, W), of the size that it is to be looked at with.
        rules: as for :func:`labeltrace.align`.

    Raises:
        LabelError: there are no images.
        LabelTraceError: the model cannot be captured or traced.

    Attributes:
        model: the model.
        trace: its trace.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, *, rules: Mapping[Any, Rule] | None = None
    ) -> None:
        _check_images(images)
        self.model = model.module if isinstance(model, AlignedModule) else model
        registry = current().with_overrides(rules)
        with evaluating(self.model), torch.no_grad():
            found = capture_model(self.model, (images,), whole=registry.functions)
        self.trace: Trace = trace_graph(found, registry)
        self._sizes = tuple(images.shape[1:])

    def places(self) -> tuple[Place, ...]:
        """Every node that carries labels, in order."""
        return places(self.trace)

    def named(self, names: Iterable[str]) -> dict[str, Place]:
        """The places that names stand for; see :func:`labeltrace.inspection.places.places_named`."""
        return places_named(self.trace, names)

    def labels(
        self, images: Tensor, labels: Tensor, seen: Mapping[str, Place]
    ) -> dict[str, NodeLabels]:
        """The labels at places, by the same names.

        Args:
            images: (B, C, H, W), of the size of the captured ones.
            labels: a label image (B, K, H, W) or (B, K, 1, 1).
            seen: the places.

        Raises:
            LabelError: images or label image do not fit.
            LayoutError: the images of a batch cannot be told apart at a place.
        """
        self.check(images)
        check_label_image(labels, images, 1)
        firsts = _unique_by_field(seen)
        found = self.run(with_outputs_at(self.trace, firsts.values()), images, labels)
        by_field = dict(zip(firsts, found, strict=True))
        grids = self.grids(images, seen)
        return {
            name: NodeLabels(place, by_field[place.field], grids[name])
            for name, place in seen.items()
        }

    def grids(self, images: Tensor, seen: Mapping[str, Place]) -> dict[str, TokenGrid | None]:
        """Where the tokens of places lie in the image."""
        firsts = _unique_by_field(seen)
        program = self.program(
            without_mixing_or_overlap(with_outputs_at(self.trace, firsts.values()))
        )
        few = images[: max(1, self.trace.capture.batch.smallest)]
        pixels = coordinates(images.shape[2], images.shape[3], images.device)
        with evaluating(self.model):
            moments = program((few,), pixels.expand(len(few), -1, -1, -1))
        whole = pixels[0].flatten(1).mean(1)
        found = {field: grid_from(m[0], whole) for field, m in zip(firsts, moments, strict=True)}
        return {name: found[place.field] for name, place in seen.items()}

    def program(self, trace: Trace) -> LabelProgram:
        """A changed trace as a program over the model's parameters."""
        return LabelProgram(self.model, trace)

    def run(self, trace: Trace, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The labels of a changed trace's outputs."""
        return self.run_program(self.program(trace), images, labels)

    def run_program(
        self, program: LabelProgram, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        """The labels that a program gives, with the model in eval mode."""
        with evaluating(self.model):
            return program((images,), labels)

    def activations(self, images: Tensor, seen: Mapping[str, Place]) -> dict[str, Tensor]:
        """The tensors at places as (B, N, C), tokens in the order of their labels."""
        self.check(images)
        reader = _Reader(self.trace, {place.node for place in seen.values()})
        with evaluating(self.model), without_gradient(self.trace.capture, images.device):
            reader.run(*live_state(self.model, self.trace.capture), images)
        return {name: _as_tokens(reader.read[p.node], p.layout) for name, p in seen.items()}

    def check(self, images: Tensor) -> None:
        """Check that images are of the size of the captured ones.

        Raises:
            LabelError: they are not, or the graph is for another batch.
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
                f"{batch.largest:g} images; make another Observer with such a batch "
                f"({batch.fixed_reason})"
            )


def labels_at(
    model: nn.Module | Observer, images: Tensor, labels: Tensor, names: Iterable[str]
) -> dict[str, NodeLabels]:
    """The labels at named nodes or modules of a model, in eval mode.

    Args:
        model: the model, or an :class:`Observer` of it where it is asked more than once.
        images: (B, C, H, W).
        labels: a label image (B, K, H, W) or (B, K, 1, 1).
        names: nodes, modules' paths, patterns of paths or ``"output"``; see
            :func:`labeltrace.inspection.places.places_named`.

    Returns:
        The labels by name, in the order of the names; for a pattern, by the modules' paths.

    Raises:
        LabelError: there is no such node or module, or images and labels do not fit.
        LabelTraceError: the model cannot be captured or traced.

    Example:
        >>> import torch
        >>> from labeltrace import labels_at
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        >>> labels = torch.full((2, 5, 8, 8), 1 / 5)
        >>> found = labels_at(model, torch.rand(2, 3, 8, 8), labels, ["0"])["0"]
        >>> found.labels.shape, found.map().shape  # tokens (B, N, K), map (B, K, rows, columns)
        (torch.Size([2, 4, 5]), torch.Size([2, 5, 2, 2]))
    """
    observer = observer_of(model, images)
    return observer.labels(images, labels, observer.named(names))


def observer_of(model: nn.Module | Observer, images: Tensor) -> Observer:
    """The observer itself, or one of a model."""
    return model if isinstance(model, Observer) else Observer(model, images)


def _unique_by_field(seen: Mapping[str, Place]) -> dict[LabelField, Place]:
    """Places with one field have the same labels, which are computed once."""
    return {place.field: place for place in seen.values()}


class _Reader(Interpreter):
    """Runs a captured graph and keeps the values of some of its nodes."""

    def __init__(self, trace: Trace, wanted: set[str]) -> None:
        super().__init__(GraphModule(trace.capture.root, trace.capture.graph))
        self.wanted = wanted
        self.read: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.read[n.name] = value
        return value


def _as_tokens(value: Tensor, layout: Layout) -> Tensor:
    """A tensor as (B, N, C): positions in the order of its label field, all else as channels."""
    factors = [factor for axis in layout.axes for factor in axis]
    split = value.reshape(infer_dynamic(factor.size for factor in factors))
    (batch,), others, _ = tokens(layout).axes
    order = [factors.index(factor) for factor in (batch, *others)]  # slots tell positions apart
    rest = [index for index in range(len(factors)) if index not in order]
    return split.permute(*order, *rest).reshape(
        split.shape[order[0]], math.prod(factor.size for factor in others), -1
    )


def _check_images(images: object) -> None:
    if not isinstance(images, Tensor):
        raise LabelError(
            f"images must be a tensor (B, C, H, W), not {type(images).__name__}; stack them and "
            "normalise them as the model was trained"
        )
    if images.dim() != 4 or not images.is_floating_point() or 0 in images.shape:
        raise LabelError(
            f"images must be floating point (B, C, H, W) and not empty, got {images.dtype} of "
            f"shape {tuple(images.shape)}"
        )
