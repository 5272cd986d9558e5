"""Ablations of the alignment (the paper's Table 8): each changes a finished trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from labeltrace.capture.module_paths import lies_in, lies_in_named
from labeltrace.errors import LabelError
from labeltrace.flow import (
    Attend,
    Average,
    LabelField,
    LabelStep,
    LabelView,
    LinearMix,
    Mix,
    Operation,
    Rearrange,
)
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.layout import Arrangement
from labeltrace.tracing.trace import Trace


@dataclass(frozen=True, slots=True)
class Ablation:
    """What the alignment leaves out; nothing by default (Table 8 of the paper).

    The rows of the table for chosen layers, for the last layer, and for "normalization disabled":

        labeltrace.align(model, ablation=Ablation(layers=["blocks.1", "blocks.3"]))
        labeltrace.align(model, ablation=Ablation(last_layer=True, residual=False))
        labeltrace.align(model, ablation=Ablation(residual=False))

    Attributes:
        layers: the modules whose steps move labels, as paths or patterns (`"blocks.[2-5]"`);
            everything inside such a module belongs to it. Everywhere else tokens keep their
            labels: a residual connection keeps the label of the stream, and mixing that keeps the
            number of positions is left out. Patch embedding, merging and pooling change that
            number; they stay. None for all modules.
        last_layer: only the last layer moves labels (see `layers_of`). Without its residual
            connection that is TransMix, with the class token's own share distributed like the
            mixing ratio.
        residual: whether residual connections average (eq. 11). False gives the sum the label of
            the branch, as if the layer had no residual connection. To leave out only the
            normalization would change nothing in a plain ViT: all labels would grow by the same
            factor, and a target that sums to one cancels it.

    Raises:
        LabelError: `layers` is a string, or both `layers` and `last_layer` are given.

    Examples:
        >>> import torch
        >>> from labeltrace import Ablation, align
        >>> blur = torch.nn.AvgPool2d((1, 3), stride=1, padding=(0, 1))
        >>> images = torch.rand(1, 3, 1, 4)
        >>> labels = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]]])
        >>> align(blur)(images, labels)[1][0, 0]
        tensor([[1.0000, 0.6667, 0.3333, 0.0000]])
        >>> align(blur, ablation=Ablation(layers=[]))(images, labels)[1][0, 0]
        tensor([[1., 1., 0., 0.]])
    """

    layers: tuple[str, ...] | None = None
    last_layer: bool = False
    residual: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise LabelError(f"layers is a list of module paths; write layers=[{self.layers!r}]")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.layers is not None and self.last_layer:
            raise LabelError("an ablation has either layers or last_layer, not both")


def ablated(trace: Trace, ablation: Ablation) -> Trace:
    """The trace of the same model with parts of the alignment left out.

    Raises:
        LabelError: a pattern matches no module that moves labels, or there is no last layer.
    """
    if ablation.last_layer:
        trace = without_mixing(trace, _chosen_by(trace, _last_layer(trace)))
    elif ablation.layers is not None:
        trace = without_mixing(trace, _chosen_by(trace, ablation.layers))
    return trace if ablation.residual else _branches_alone(trace)


def layers_of(trace: Trace) -> tuple[str, ...]:
    """The modules that have a residual connection of labels, in order: a model's blocks.

    The module is the innermost one whose forward pass contains the addition. A model without
    residual connections has no layers.
    """
    residual = (field for field, step in trace.steps.items() if _is_residual(step))
    return tuple(dict.fromkeys(trace.module_paths[field.node] for field in residual))


def moves_labels(step: LabelStep) -> bool:
    """Whether a step mixes or aggregates positions."""
    return step.operation in (Operation.SPATIAL_MIXING, Operation.SPATIAL_AGGREGATION)


def without_mixing(trace: Trace, chosen: Callable[[LabelField], bool]) -> Trace:
    """The trace in which all steps but those of the chosen fields leave labels where they are.

    See `Ablation.layers` for the steps that stay.
    """
    steps = {
        field: _ablate_step(trace, step, chosen)
        if _is_residual(step) or not chosen(field)
        else step
        for field, step in trace.steps.items()
    }
    return replace(trace, steps=steps)


def _ablate_step(trace: Trace, step: LabelStep, chosen: Callable[[LabelField], bool]) -> LabelStep:
    """The step outside the chosen layers, where tokens keep their labels."""
    if not _is_residual(step):
        return _identity_step(step) if moves_labels(step) else step
    parts = _stream_and_branch(trace.steps, step)
    if parts is None or any(map(chosen, parts.inside)):
        return step
    return _keep_summands(step, (parts.stream,))


# Layers.


def _last_layer(trace: Trace) -> tuple[str]:
    layers = layers_of(trace)
    moving = [field for field, step in trace.steps.items() if moves_labels(step)]
    for layer in reversed(layers):
        if any(lies_in(trace.module_paths[field.node], layer) for field in moving):
            return (layer,)
    raise LabelError(
        "the model has no residual connection around a step that mixes labels, so it has no last "
        "layer; name one with layers="
    )


def _chosen_by(trace: Trace, patterns: tuple[str, ...]) -> Callable[[LabelField], bool]:
    """Whether a field's step moves labels in a module that one of the patterns names."""
    moving = {field for field, step in trace.steps.items() if moves_labels(step)}
    paths = {field: trace.module_paths[field.node] for field in moving}
    found = {p: {f for f in moving if lies_in_named(paths[f], p)} for p in patterns}
    lost = [pattern for pattern, fields in found.items() if not fields]
    if lost:
        known = dict.fromkeys(paths[field] for field in trace.steps if field in moving)
        raise LabelError(
            f"no step that mixes labels lies in {', '.join(lost)}; such steps are in "
            f"{', '.join(path or '(the model itself)' for path in known)}"
        )
    return set[LabelField]().union(*found.values()).__contains__


# Residual connections.


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a residual connection; `inside` has the fields that its branches compute."""

    stream: LabelView
    branches: tuple[LabelView, ...]
    inside: frozenset[LabelField]


def _is_residual(step: LabelStep) -> bool:
    return isinstance(step, Average) and step.operation is Operation.RESIDUAL


def _stream_and_branch(steps: Mapping[LabelField, LabelStep], step: LabelStep) -> _Parts | None:
    """The summand that all others are computed from, and the others; None if there is none."""
    summands = _summands(steps, step)
    for stream in summands:
        branches = tuple(labels for labels in summands if labels != stream)
        inside = _fields_between(steps, stream, branches)
        if branches and inside is not None:
            return _Parts(stream, branches, inside)
    return None


def _summands(steps: Mapping[LabelField, LabelStep], step: LabelStep) -> list[LabelView]:
    """The summands of a sum; one that counts for several is a partial sum, and is split up."""
    assert isinstance(step, Average)
    found: list[LabelView] = []
    for labels, share in zip(step.sources, step.shares, strict=True):
        part = steps.get(labels.field)
        whole = part is not None and labels.arrangement.shape == part.field_sizes
        found += _summands(steps, part) if share > 1 and part and whole else [labels]
    return found


def _fields_between(
    steps: Mapping[LabelField, LabelStep], stream: LabelView, branches: tuple[LabelView, ...]
) -> frozenset[LabelField] | None:
    """The fields between a stream and its branches; None if these read other fields too."""
    inside: set[LabelField] = set()
    queue = [labels.field for labels in branches]
    while queue:
        field = queue.pop()
        if field == stream.field or field in inside:
            continue
        if field not in steps:
            return None
        inside.add(field)
        queue += [labels.field for labels in steps[field].labels]
    return frozenset(inside)


def _branches_alone(trace: Trace) -> Trace:
    """The trace in which sums have the label of their branches; see `Ablation.residual`."""
    steps = dict(trace.steps)
    for field, step in trace.steps.items():
        parts = _stream_and_branch(trace.steps, step) if _is_residual(step) else None
        if parts is not None:
            steps[field] = _keep_summands(step, parts.branches)
    return replace(trace, steps=steps)


def _keep_summands(step: LabelStep, sources: tuple[LabelView, ...]) -> LabelStep:
    """A residual connection of some of its summands."""
    assert isinstance(step, Average)
    if len(sources) > 1:
        return replace(step, sources=sources, shares=(1,) * len(sources))
    (source,) = sources
    if source.arrangement.shape != step.field_sizes:  # broadcast by the other summands
        return step
    return _carried(step, source)


# Mixing.


def _identity_step(step: LabelStep) -> LabelStep:
    """The step as one that leaves labels where they are, if it keeps the number of positions."""
    if len(step.labels) != 1:
        return step
    (source,) = step.labels
    if isinstance(step, (Mix, Attend, LinearMix)):
        source = _as_rows(source, step.equation)
    if source.arrangement.shape != step.field_sizes:
        return step
    return _carried(step, source)


def _as_rows(source: LabelView, equation: MixingEquation | LinearMixingEquation) -> LabelView:
    """The labels with the columns of a mixing matrix at the indices of its rows."""
    names, result = equation.labels, equation.result
    rows = [name for name in result if name not in names]
    columns = [name for name in names if name not in result]
    groups = source.arrangement.groups
    if len(rows) != len(columns) or len(names) != len(groups):
        return source
    stands_for = dict(zip(rows, columns, strict=True))
    order = (groups[names.index(stands_for.get(name, name))] for name in result)
    return LabelView(source.operand, Arrangement(source.arrangement.sizes, tuple(order)))


def _carried(step: LabelStep, source: LabelView) -> Rearrange:
    return Rearrange(
        layout=step.layout,
        field_shape=step.field_shape,
        source=source,
        facts=step.facts,
        approximation=step.approximation,
    )
