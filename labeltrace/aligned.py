"""What users hold: :func:`align`, :func:`trace` and :class:`AlignedModule`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labeltrace.capture.capture import capture_model
from labeltrace.capture.inputs import checked_channel_dim, first_tensor
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import Registry, current
from labeltrace.runtime.graph_cache import GraphCache
from labeltrace.runtime.label_checks import check_label_image
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph


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
        self.__dict__["module"] = model
        self.__dict__["_graphs"] = GraphCache(model, registry, channel_dim, ablation or Ablation())
        del self.__dict__["training"]  # the model's, whichever of the two it is set on

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
        args = (x, *args)
        _, image = first_tensor(args, kwargs)
        check_label_image(labels, image, checked_channel_dim(image, self._graphs.channel_dim))
        if torch.compiler.is_compiling():
            # It needs torch._dynamo, which would more than double the time to import labeltrace.
            from labeltrace.runtime.torch_compile import traced_graph

            graph = traced_graph(self._graphs, args, kwargs)
        else:
            graph = self._graphs.graph(args, kwargs)
        return graph.run(self.module, args, kwargs, labels)

    def trace(self, x: Any, *args: Any, **kwargs: Any) -> Trace:
        """The trace that serves this call, in the model's present mode."""
        return self._graphs.graph((x, *args), kwargs).trace

    def label_code(self) -> str:
        """The label half of the last generated module as a readable program.

        Raises:
            LabelError: nothing has been captured yet.
        """
        return self._graphs.label_code()

    # Being the model.

    def train(self, mode: bool = True) -> AlignedModule:
        """Set the model's mode, as :meth:`torch.nn.Module.train` does."""
        self.module.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The plain model's state."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load a state of the plain model's."""
        return self.module.load_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """The model's class and the number of captures."""
        return f"{type(self.module).__name__}, {len(self._graphs.graphs)} label graphs"

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        model = self.__dict__.get("module")
        if model is not None and name in vars(model) and name not in self.__dict__:
            setattr(model, name, value)  # a plain setting of the model's, such as a drop rate
        else:
            super().__setattr__(name, value)


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
    aligned = AlignedModule(model, current().with_overrides(rules), channel_dim, ablation)
    if example is not None:
        args = example if isinstance(example, tuple) else (example,)
        aligned._graphs.graph(args, {})
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
    registry = current().with_overrides(rules)
    found = capture_model(model, args, channel_dim=channel_dim, whole=registry.functions)
    return trace_graph(found, registry)


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"labeltrace takes a torch.nn.Module, not {type(model).__name__}")
