"""The public entry points: `align`, `trace` and `AlignedModule`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labeltrace.capture.capture import capture_model
from labeltrace.capture.inputs import checked_channel_dim, first_tensor
from labeltrace.capture.model_kinds import check_model
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import Registry, current
from labeltrace.runtime.engine_choice import EngineChoice, EngineName
from labeltrace.runtime.engines import Engines
from labeltrace.runtime.label_checks import check_label_image
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph


class AlignedModule(nn.Module):
    """A model whose forward pass also computes labels; `align` makes one.

    `aligned(x)` is the plain model.  `aligned(x, labels)` returns `(outputs, labels)`: the model's
    outputs, bit for bit, and a label for each output tensor.  The label has the shape of that
    tensor, with the K sources in place of its channel axis.  It is None for an output that does not
    come from the image.

    The module shares parameters, buffers and submodules with the model under the model's own names:
    its `state_dict` is the model's, and attributes that it lacks are the model's.

    With labels the model runs as a captured graph.  A new capture is made when a submodule, a mode,
    a plain attribute (a drop rate), a hook or the size of an input changes.  Hooks of submodules
    run when the graph is captured: what they do to activations is part of the graph, their side
    effects are not repeated.

    Attributes:
        module: the model itself, unchanged.

    Examples:
        >>> import torch
        >>> from labeltrace import align
        >>> aligned = align(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4)))
        >>> aligned(torch.rand(2, 3, 8, 8)).shape  # the plain model
        torch.Size([2, 8, 2, 2])
        >>> labels = torch.full((2, 5, 8, 8), 1 / 5)
        >>> outputs, output_labels = aligned(torch.rand(2, 3, 8, 8), labels)
        >>> outputs.shape, output_labels.shape
        (torch.Size([2, 8, 2, 2]), torch.Size([2, 5, 2, 2]))
    """

    module: nn.Module

    def __init__(
        self,
        model: nn.Module,
        registry: Registry,
        channel_dim: int = 1,
        ablation: Ablation | None = None,
        engine: EngineName = "auto",
    ) -> None:
        super().__init__()
        # The same dictionaries, not copies: whatever is registered in one is registered in both.
        self._parameters = model._parameters
        self._buffers = model._buffers
        self._modules = model._modules
        self.__dict__["module"] = model
        self.__dict__["_engines"] = Engines(
            model, registry, channel_dim, ablation or Ablation(), engine
        )
        del self.__dict__["training"]  # the model's, whichever of the two it is set on

    # Calls.

    def forward(self, x: Any, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """The plain model; with a label image, the model's outputs and their labels.

        Args:
            x: the model's first argument; its first tensor, (B, C, *sizes), carries the labels.
            labels: the label image, not class indices: (B, K, *sizes) or (B, K, 1, ...), floating
                point, non-negative, summing to one over K; None for the plain model.
            *args: the model's further arguments; they carry no labels.
            **kwargs: the model's keyword arguments; they carry no labels.

        Returns:
            The model's outputs; with `labels` a pair of them and their labels, float32.

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
        check_label_image(labels, image, checked_channel_dim(image, self._engines.channel_dim))
        if torch.compiler.is_compiling():
            # It needs torch._dynamo, which would more than double the time to import labeltrace.
            from labeltrace.runtime.torch_compile import traced_graph

            graph = traced_graph(self._engines.graphs, args, kwargs)
            return graph.run(self.module, args, kwargs, labels)
        return self._engines.run(args, kwargs, labels)

    def trace(self, x: Any, *args: Any, **kwargs: Any) -> Trace:
        """The trace for this call, in the model's present mode."""
        return self._engines.trace((x, *args), kwargs)

    def label_code(self) -> str:
        """The label half of the last generated module as a readable program.

        Raises:
            LabelError: nothing has been captured yet.
        """
        return self._engines.label_code()

    def engine_report(self) -> tuple[EngineChoice, ...]:
        """The engine of each form of call so far, with the reason where the model is recorded.

        Examples:
            >>> import torch
            >>> from labeltrace import align
            >>> aligned = align(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4)))
            >>> found = aligned(torch.rand(2, 3, 8, 8), torch.full((2, 5, 8, 8), 1 / 5))
            >>> [str(choice.engine) for choice in aligned.engine_report()]
            ['captured']
        """
        return self._engines.report()

    # What is the model's own.

    def train(self, mode: bool = True) -> AlignedModule:
        """Set the model's mode, as `torch.nn.Module.train` does."""
        self.module.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The plain model's state."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load a state of the plain model."""
        return self.module.load_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """The model's class and the number of captures."""
        return f"{type(self.module).__name__}, {len(self._engines)} label graphs"

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
    engine: EngineName = "auto",
) -> AlignedModule:
    """Follow labels through a model during its forward pass (TL-Align, sections 3.3 and D).

    Args:
        model: any module whose forward pass `torch.export.export` can follow.
        example: inputs to capture the model with at once: a tensor (B, C, *sizes), or a tuple of
            the model's arguments.  Without it the first call with labels captures the model.
        rules: rules of your own by operator (`torch.ops.aten.name` or its name), module class or
            Python function; they win over those of `using_rules` and the registered ones.
        channel_dim: the channel axis of the input that carries labels; all other axes but the
            batch are positions.
        ablation: which parts of the alignment to leave out, for studies such as the paper's
            Table 8; nothing by default.
        engine: "captured", a graph of the model runs in its place; "recorded", the model runs as
            it is and labels follow the record of its calls; "auto", captured where that is known
            to be true to the model, recorded otherwise.

    Returns:
        A module over the same parameters; the model itself stays as it is.

    Raises:
        CaptureError: the example cannot be captured.
        UnknownOperatorError: the model has operators without a rule.
        LayoutError: the model's positions cannot be followed.
        LabelError: the ablation names layers that the model does not have.
        TypeError: the model is no module, wraps one (`DistributedDataParallel`, `torch.compile`) or
            is TorchScript, or the rules are not by operator.

    Examples:
        >>> import torch
        >>> from labeltrace import align
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(2))
        >>> labels = torch.zeros(1, 2, 8, 8)
        >>> labels[:, 0, :, :6] = 1  # the left three quarters come from image 0,
        >>> labels[:, 1, :, 6:] = 1  # the rest from image 1
        >>> outputs, token_labels = align(model)(torch.rand(1, 3, 8, 8), labels)
        >>> token_labels[0, 0]  # the share of image 0 in each of the four tokens
        tensor([1.0000, 0.5000, 1.0000, 0.5000])
    """
    check_model(model)
    aligned = AlignedModule(model, current().with_overrides(rules), channel_dim, ablation, engine)
    if example is not None:
        aligned._engines.trace(example if isinstance(example, tuple) else (example,), {})
    return aligned


def trace(
    model: nn.Module,
    example: Any,
    *,
    rules: Mapping[Any, Rule] | None = None,
    channel_dim: int = 1,
) -> Trace:
    """What a model does to labels, node by node, in its present mode.

    The arguments and errors are those of `align`, which also takes an ablation.

    Examples:
        >>> import torch
        >>> from labeltrace import trace
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        >>> for node in trace(model, torch.rand(2, 3, 8, 8)).nodes:
        ...     print(node.name, node.operation, node.exact)
        conv2d spatial aggregation True
        relu pointwise True
    """
    check_model(model)
    args = example if isinstance(example, tuple) else (example,)
    registry = current().with_overrides(rules)
    found = capture_model(model, args, channel_dim=channel_dim, whole=registry.functions)
    return trace_graph(found, registry)
