"""What users hold: :func:`align`, :func:`trace` and :class:`AlignedModule`."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from labeltrace.ablation import Ablation, ablated
from labeltrace.call import Rule
from labeltrace.capture import Capture, capture, checked_channel_dim, first_tensor
from labeltrace.errors import CaptureError, LabelError
from labeltrace.generate import Generated, generate
from labeltrace.label_checks import check_label_image
from labeltrace.modes import modes_kept
from labeltrace.registry import Registry, current
from labeltrace.tracing import Trace, trace_graph


@dataclass(frozen=True, slots=True)
class _Captured:
    """One capture with its trace and module; ``modules`` keeps the identities in its key alive."""

    capture: Capture
    trace: Trace
    generated: Generated
    modules: tuple[nn.Module, ...]


class AlignedModule(nn.Module):
    """A model whose forward pass takes a label along.

    ``aligned(x)`` is the plain model.  ``aligned(x, labels)`` returns ``(outputs, labels)``: the
    model's outputs, bit for bit, and for each output tensor its label, with that tensor's shape and
    the K sources in the place of its channel axis (None for an output that does not come from the
    image).

    The module shares parameters, buffers and submodules with the model under the model's own names:
    its ``state_dict`` is the model's, and attributes that it lacks are the model's.

    With labels the model runs as a captured graph.  The capture is made anew where a submodule, a
    mode, a plain setting (a drop rate), a hook or an input's size changes.  Hooks of submodules run
    when the graph is captured: what they do to activations is part of it, their side effects are
    not repeated.

    Attributes:
        module: the model itself, unchanged.
    """

    module: nn.Module

    def __init__(
        self,
        model: nn.Module,
        registry: Registry,
        channel_dim: int = 1,
        ablation: Ablation | None = None,
    ) -> None:
        super().__init__()
        # The same dictionaries, not copies: whatever is registered in one is registered in both.
        self._parameters = model._parameters
        self._buffers = model._buffers
        self._modules = model._modules
        self.training = model.training
        self.__dict__["module"] = model
        self.__dict__["_registry"] = registry
        self.__dict__["_channel_dim"] = channel_dim
        self.__dict__["_ablation"] = ablation or Ablation()
        self.__dict__["_captures"] = {}

    # Calls.

    def forward(self, x: Any, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """The plain model, or the model with labels.

        Args:
            x: the model's first argument; its first tensor, (B, C, *sizes), carries the labels.
            labels: (B, K, *sizes) or (B, K, 1, ...), floating point, non-negative, summing to one
                over K; None for the plain model.
            *args: the model's further arguments; they carry no labels.
            **kwargs: likewise.

        Returns:
            The model's outputs; with ``labels`` a pair of them and their labels, float32.

        Raises:
            LabelError: the label image does not fit.
            CaptureError: the model cannot be captured on these inputs.
            UnknownOperatorError: operators without a rule.
            LayoutError: positions cannot be followed.
        """
        if labels is None:
            return self.module(x, *args, **kwargs)
        _, image = first_tensor((x, *args), kwargs)
        check_label_image(labels, image, checked_channel_dim(image, self._channel_dim))
        captured = self._captured((x, *args), kwargs)
        leaves, _ = tree_flatten(((x, *args), kwargs))
        state, constants = self._state(captured.capture), captured.capture.constants
        with modes_kept(image.device.type) if captured.capture.switches_modes else nullcontext():
            results = captured.generated.module(*state, *constants, *leaves, labels)
        spec = captured.capture.output_spec
        count = spec.num_leaves
        return tree_unflatten(list(results[:count]), spec), tree_unflatten(
            list(results[count:]), spec
        )

    def trace(self, x: Any, *args: Any, **kwargs: Any) -> Trace:
        """The trace that serves this call, in the model's present mode."""
        return self._captured((x, *args), kwargs).trace

    def label_code(self) -> str:
        """The label half of the last generated module as a readable program.

        Raises:
            LabelError: nothing has been captured yet.
        """
        if not self._captures:
            raise LabelError(
                "no label graph yet: call the module with labels once, or pass an example to align"
            )
        last = next(reversed(self._captures.values()))
        return str(last[-1].generated.label_code)

    # Captures.

    def _captured(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Captured:
        _, image = first_tensor(args, kwargs)
        batch = image.shape[0]
        key = self._key(args, kwargs, batch)
        known: list[_Captured] = self._captures.setdefault(key, [])
        for captured in known:
            if captured.capture.holds_for(batch):
                return captured
        try:
            found = capture(
                self.module,
                args,
                kwargs,
                channel_dim=self._channel_dim,
                whole=self._registry.functions,
            )
            trace = ablated(trace_graph(found, self._registry), self._ablation)
            fresh = _Captured(found, trace, generate(trace), tuple(self.module.modules()))
        finally:
            if not known:
                del self._captures[key]
        self._captures.setdefault(key, []).append(fresh)
        return fresh

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> tuple[Any, ...]:
        """All that a captured graph takes for constant."""
        leaves, spec = tree_flatten((args, dict(kwargs)))
        flags = tuple(_settings(module) for module in self.module.modules())
        parameter = next(self.module.parameters(), None)
        device = parameter.device if parameter is not None else None
        dtype = parameter.dtype if parameter is not None else None
        described = tuple(_describe(leaf, batch) for leaf in leaves)
        return (flags, device, dtype, described, str(spec), _ambient(leaves))

    def _state(self, found: Capture) -> Iterator[Any]:
        """The live parameters and buffers, in the order of the graph's placeholders."""
        for entry in found.state:
            yield functools.reduce(getattr, entry.name.split("."), self.module)

    # Being the model.

    def train(self, mode: bool = True) -> AlignedModule:
        """Set the model's mode, as :meth:`torch.nn.Module.train` does."""
        self.module.train(mode)
        self.training = mode
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The plain model's state."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load a state of the plain model's."""
        return self.module.load_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """The model's class and the number of captures."""
        return f"{type(self.module).__name__}, {len(self._captures)} label graphs"

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["module"], name)

    def __getstate__(self) -> dict[str, Any]:
        # Captures are made again where the copy is used: they belong to this model's parameters.
        return {**self.__dict__, "_captures": {}}


def align(
    model: nn.Module,
    example: Any = None,
    *,
    rules: Mapping[Any, Rule] | None = None,
    channel_dim: int = 1,
    ablation: Ablation | None = None,
) -> AlignedModule:
    """Let labels ride along with a model's forward pass (TL-Align, sections 3.3 and D).

    Args:
        model: any module whose forward pass :func:`torch.export.export` can follow.
        example: inputs to capture the model with at once: a tensor (B, C, *sizes), or a tuple of
            the model's arguments.  Without it the first call with labels captures the model.
        rules: rules of your own by operator (``torch.ops.aten.name`` or its name), module class or
            Python function; they win over those of ``using_rules`` and the filed ones.
        channel_dim: the axis of the labelled input that has channels; all others are positions.
        ablation: which parts of the alignment to leave out, for studies such as the paper's
            Table 8; nothing by default.

    Returns:
        A module over the same parameters; the model itself stays as it is.

    Raises:
        CaptureError: the example cannot be captured.
        UnknownOperatorError: the model has operators without a rule.
        LayoutError: the model's positions cannot be followed.
        LabelError: the ablation names layers that the model does not have.
        TypeError: the model is no module, or the rules are not by operator.
    """
    _check_module(model)
    aligned = AlignedModule(model, current().overlaid(rules), channel_dim, ablation)
    if example is not None:
        args = example if isinstance(example, tuple) else (example,)
        aligned._captured(args, {})
    return aligned


def trace(
    model: nn.Module,
    example: Any,
    *,
    rules: Mapping[Any, Rule] | None = None,
    channel_dim: int = 1,
) -> Trace:
    """What a model does to labels, node by node, in its present mode.

    The arguments and errors are those of :func:`align`, but for the ablation.
    """
    _check_module(model)
    args = example if isinstance(example, tuple) else (example,)
    registry = current().overlaid(rules)
    found = capture(model, args, channel_dim=channel_dim, whole=registry.functions)
    return trace_graph(found, registry)


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"labeltrace takes a torch.nn.Module, not {type(model).__name__}")


_PLAIN = (bool, int, float, str)


def _settings(module: nn.Module) -> tuple[Any, ...]:
    """What a graph takes for constant about one module: itself, its plain attributes, its hooks."""
    plain = [value for value in vars(module).values() if type(value) in _PLAIN]
    hooks = (*module._forward_pre_hooks, *module._forward_hooks)
    return (id(module), *plain, *hooks)


def _describe(leaf: Any, batch: int) -> Any:
    """What a graph takes for constant about one leaf of the arguments."""
    if not isinstance(leaf, Tensor):
        if not isinstance(leaf, Hashable):
            raise CaptureError(
                f"an argument of type {type(leaf).__name__} cannot be part of a graph; pass "
                "tensors, numbers, strings, and lists, tuples and dicts of them"
            )
        return (type(leaf), leaf)
    shape: tuple[Any, ...] = tuple(leaf.shape)
    if shape and shape[0] == batch:
        shape = ("batch", *shape[1:])
    return (leaf.dtype, leaf.device, shape)


def _ambient(leaves: list[Any]) -> tuple[Any, ...]:
    """The settings around a call that change what a graph records."""
    device = next(leaf.device.type for leaf in leaves if isinstance(leaf, Tensor))
    known = torch.amp.is_autocast_available(device)
    autocast = known and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else None
    return (torch.is_grad_enabled(), autocast, dtype)
