"""Capture: a model as an ATen graph, through :func:`torch.export.export`.

The model is exported with a dynamic batch; where that fails, with the batch as it is, and the
reason is kept.  Parameters and buffers stay placeholders of the graph, so that a caller reads them
from the live model at every call.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.utils import parametrize
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map

from labeltrace.capture.checkpoint_tags import Settings, tag_checkpoint_calls
from labeltrace.capture.fix_rnn_state_shapes import fix_rnn_state_shapes
from labeltrace.capture.function_tags import Function, tag_function_calls
from labeltrace.capture.inline_subgraphs import inline_subgraphs
from labeltrace.errors import CaptureError

Calls = tuple[tuple[Any, ...], ...]
"""Operators with the plain values among their arguments; ``...`` stands for computed ones."""

_BATCH_OF_ONE_DIFFERS = "the model treats a batch of one differently"
_SECONDS_BEFORE_PROGRESS = 2.0
_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
_PYTHON_FOLDER = os.path.dirname(os.__file__) + os.sep


@dataclass(frozen=True, slots=True)
class StateInput:
    """A placeholder that stands for a parameter or buffer of the model, by its qualified name."""

    placeholder: str
    name: str


@dataclass(frozen=True, slots=True)
class Capture:
    """A model's graph, and how its placeholders and outputs meet the model's own call.

    ``graph`` has, in this order, a placeholder for each of ``state``, for each of ``constants`` and
    for each leaf of ``(args, kwargs)``.  ``traced_input`` names the leaf that carries labels.
    ``batch_range`` has the smallest and largest batch for which the graph holds;
    ``fixed_batch_reason`` says why the batch is fixed, or is empty.  ``switches_modes`` says
    that it has regions under autocast or another gradient mode.  ``module_types`` has the class of
    each submodule by its name, ``functions`` the functions kept whole by the tag of a call,
    ``checkpoints`` the settings of each checkpointed call by its tag.  ``calls`` tells two graphs
    of one model apart, whatever the batch.
    """

    graph: torch.fx.Graph
    root: nn.Module
    state: tuple[StateInput, ...]
    constants: tuple[Any, ...]
    traced_input: str
    channel_dim: int
    input_spec: TreeSpec
    output_spec: TreeSpec
    batch_range: tuple[int, float]
    fixed_batch_reason: str
    switches_modes: bool
    module_types: Mapping[str, type]
    functions: Mapping[str, Function]
    checkpoints: Mapping[str, Settings]
    calls: Calls

    @property
    def dynamic_batch(self) -> bool:
        return not self.fixed_batch_reason

    def holds_for(self, batch: int) -> bool:
        """Whether the graph is that of the model for this batch size."""
        smallest, largest = self.batch_range
        return smallest <= batch <= largest


def live_state(model: nn.Module, found: Capture) -> Iterator[Any]:
    """What a captured graph takes before the inputs: the model's parameters, buffers, constants.

    This runs at every call: each module is looked up once, not for each of its parameters.
    """
    modules = {"": model}
    for entry in found.state:
        path, _, name = entry.name.rpartition(".")
        yield getattr(_module_at(path, modules), name)
    yield from found.constants


def _module_at(path: str, known: dict[str, nn.Module]) -> nn.Module:
    """The module of a qualified name, and those on the way to it, added to the known ones."""
    if path not in known:
        parent, _, name = path.rpartition(".")
        known[path] = getattr(_module_at(parent, known), name)
    return known[path]


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, Tensor]:
    """The first tensor among the leaves of the arguments, and its place.

    Raises:
        CaptureError: there is none.
    """
    leaves, _ = tree_flatten((args, dict(kwargs)))
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            return index, leaf
    raise CaptureError(
        "the model was called without a tensor, so nothing can carry labels; pass the image batch "
        "as the first argument (it may lie inside a list, tuple or dict)"
    )


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    channel_dim: int = 1,
    whole: Iterable[Function] = (),
    dynamic: Capture | None = None,
) -> Capture:
    """Capture ``model(*args, **kwargs)``.

    The first tensor among the arguments carries labels; its axis 0 is the batch, its axis
    ``channel_dim`` has channels.  Calls of the functions ``whole`` are kept apart.  The model, its
    mode, its buffers and the random state stay as they are.  ``dynamic`` is the capture of such a
    call with larger batches, if there is one: where a batch of one has the same graph, that one is
    returned with a batch that starts at one.

    Raises:
        CaptureError: the model cannot be exported, or its inputs do not fit it, or what calls is
            being exported itself.
    """
    _check_not_exporting(model)
    kwargs = dict(kwargs or {})
    leaf, image = first_tensor(args, kwargs)
    channel_dim = checked_channel_dim(image, channel_dim)
    with (
        _progress(model),
        _suppress_rnn_warnings(),
        _restore_side_effects(model),
        tag_function_calls(whole) as functions,
        tag_checkpoint_calls() as checkpoints,
    ):
        single = False
        if dynamic is not None and image.shape[0] == 1 and dynamic.batch_range[0] == 2:
            program, reason = _export_fixed(model, args, kwargs), _BATCH_OF_ONE_DIFFERS
            if _same_calls(_calls(program), dynamic.calls):
                return replace(dynamic, batch_range=(1, dynamic.batch_range[1]))
        else:
            program, reason = _export(model, args, kwargs, image.shape[0])
            single = image.shape[0] == 1 and not reason
            if single:  # a dynamic batch starts at two: models may treat one sample in another way
                alone = _export_fixed(model, args, kwargs)
                if not _same_calls(_calls(alone), _calls(program)):
                    program, reason, single = alone, _BATCH_OF_ONE_DIFFERS, False
    captured = _capture(program, leaf, image, channel_dim, reason)
    types = {name: type(module) for name, module in model.named_modules()}
    smallest, largest = captured.batch_range
    return replace(
        captured,
        module_types=types,
        functions=functions,
        checkpoints=checkpoints,
        batch_range=(1 if single else smallest, largest),
    )


def _check_not_exporting(model: nn.Module) -> None:
    """One export within another leaves the outer one without its state."""
    if torch.compiler.is_exporting():
        raise CaptureError(
            f"an aligned {type(model).__name__} is being exported with labels before it was "
            "captured for such inputs, and one export cannot run within another; in the mode to be "
            "exported, call the aligned model once with images and labels of these sizes, or pass "
            "the images to align as its example, then export it"
        )


def checked_channel_dim(image: Tensor, channel_dim: int) -> int:
    """The channel axis of the labelled input, counted from the front.

    Raises:
        CaptureError: the input has no such axis beside that of the batch.
    """
    rank = image.dim()
    dim = channel_dim + rank if channel_dim < 0 else channel_dim
    if rank < 2 or not 0 < dim < rank:
        raise CaptureError(
            f"the input that carries labels has shape {tuple(image.shape)}; it needs a batch axis "
            f"first and a channel axis, here channel_dim={channel_dim}; pass channel_dim= to align "
            "for inputs that have their channels elsewhere"
        )
    return dim


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int
) -> tuple[ExportedProgram, str]:
    """Export with a dynamic batch, else with a fixed one and the reason."""
    try:
        return _export_dynamic(model, args, kwargs, batch), ""
    except CaptureError:
        raise  # a call that the model does not take
    except Exception as error:  # whatever stops a dynamic batch may yet pass with a fixed one
        reason = _first_lines(error, 3)
    return _export_fixed(model, args, kwargs), reason


def _export_fixed(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    args, kwargs = tree_map(_alias, args), tree_map(_alias, kwargs)
    try:
        return export(model, args, kwargs, strict=False)
    except Exception as error:
        raise CaptureError(_explain(model, error, args, kwargs)) from error


def _calls(program: ExportedProgram) -> Calls:
    """Every operator's call, but for those that read sizes or slice nothing off.

    With a batch of one, a slice of the whole batch is recorded or left out at torch's own choice.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    calls = [
        (str(node.target), *map(_plain, tree_flatten((node.args, node.kwargs))[0]))
        for node in nodes
        if not _slices_nothing(node)
    ]
    return tuple(call for call in calls if not call[0].startswith(("aten.sym_", "<built-in")))


def _plain(argument: Any) -> Any:
    return ... if isinstance(argument, torch.fx.Node) else argument


def _same_calls(single: Calls, dynamic: Calls) -> bool:
    """Whether a model does to one image what it does to several.

    Numbers that the dynamic graph computes of the size of the batch are plain ones in the other.
    """
    return len(single) == len(dynamic) and all(
        len(own) == len(other) and all(y is ... or x == y for x, y in zip(own, other, strict=True))
        for own, other in zip(single, dynamic, strict=True)
    )


def _slices_nothing(node: torch.fx.Node) -> bool:
    if node.target is not torch.ops.aten.slice.Tensor:
        return False
    (source, *_) = node.all_input_nodes
    return str(node.meta["val"].shape) == str(source.meta["val"].shape)


def _export_dynamic(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int
) -> ExportedProgram:
    hint = max(batch, 2)  # torch.export takes a batch of one for a constant

    def example(leaf: Any) -> Any:
        if _has_batch(leaf, batch) and batch != hint:
            return leaf.repeat_interleave(hint, 0)
        return _alias(leaf)

    def dynamic(leaf: Any) -> Any:
        return {0: Dim.DYNAMIC} if _has_batch(leaf, batch) else None

    names = _bound_names(model, args, kwargs)
    shapes: Any = tree_map(dynamic, {**dict(zip(names, args, strict=False)), **kwargs})
    if len(names) < len(args):  # more positional arguments than named ones
        shapes = tree_map(dynamic, args)
    return export(
        model,
        tree_map(example, args),
        tree_map(example, kwargs),
        strict=False,
        dynamic_shapes=shapes,
    )


def _alias(leaf: Any) -> Any:
    """The same values as another tensor: an export leaves marks on those that it is given."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().requires_grad_(leaf.requires_grad)


def _has_batch(leaf: Any, batch: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch


def _bound_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """The names of the positional arguments, as the model's ``forward`` has them."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(
            f"{type(model).__name__} cannot be called so: {error}; pass what its forward takes: "
            f"forward{inspect.signature(model.forward)}"
        ) from error
    named = [name for name in bound.arguments if name not in kwargs]
    parameters = inspect.signature(model.forward).parameters
    return tuple(
        name for name in named if parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL
    )[: len(args)]


def _capture(
    program: ExportedProgram, leaf: int, image: Tensor, channel_dim: int, reason: str
) -> Capture:
    signature = program.graph_signature
    state: list[StateInput] = []
    constants: list[Any] = []
    inputs: list[str] = []
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target is not None:
            state.append(StateInput(name, spec.target))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            constants.append(program.constants[str(spec.target)])
        elif spec.kind is InputKind.USER_INPUT:
            inputs.append(name)
        else:
            raise CaptureError(
                f"the model uses {spec.kind.name.lower().replace('_', ' ')} {name}, which the "
                "captured graph cannot read at call time"
            )
    for output in signature.output_specs:
        if output.kind is not OutputKind.USER_OUTPUT:
            raise CaptureError(
                f"the model writes {output.target} as a side effect of its forward "
                f"({output.kind.name.lower().replace('_', ' ')}), which labels cannot ride beside"
            )
    smallest, largest = image.shape[0], float(image.shape[0])
    if not reason:
        smallest, largest = _batch_range(program)
    calls = _calls(program)
    graph = inline_subgraphs(program.graph, program.graph_module)
    fix_rnn_state_shapes(graph)
    input_spec, output_spec = program.call_spec.in_spec, program.call_spec.out_spec
    assert input_spec is not None  # torch.export fills both in
    assert output_spec is not None
    return Capture(
        graph=graph,
        root=program.graph_module,
        state=tuple(state),
        constants=tuple(constants),
        traced_input=inputs[leaf],
        channel_dim=channel_dim,
        input_spec=input_spec,
        output_spec=output_spec,
        batch_range=(smallest, largest),
        fixed_batch_reason=reason,
        switches_modes=graph is not program.graph,
        module_types={},
        functions={},
        checkpoints={},
        calls=calls,
    )


def _batch_range(program: ExportedProgram) -> tuple[int, float]:
    """The range of the batch's symbol: from two up, unless the model sets other bounds.

    Sizes that depend on values have symbols too; those say nothing of the batch.
    """
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    shapes = [node.meta["val"].shape for node in inputs if isinstance(node.meta["val"], Tensor)]
    symbols: list[Any] = [size for shape in shapes for size in shape if type(size) is not int]
    sizes = {symbol.node.expr for symbol in symbols}
    smallest, largest = 2, float("inf")
    for symbol, bounds in program.range_constraints.items():
        if symbol not in sizes:
            continue
        smallest = max(smallest, int(bounds.lower))
        largest = min(largest, float(bounds.upper))
    return smallest, largest


# Side effects.


@contextlib.contextmanager
def _restore_side_effects(model: nn.Module) -> Iterator[None]:
    """Put the random state and the modules' plain attributes back, whatever the export did.

    Parametrised weights are computed for the export alone: none of them gets into the cache of
    :func:`torch.nn.utils.parametrize.cached`.
    """
    plain = (bool, int, float, str)
    before = [
        (module, {name: value for name, value in vars(module).items() if type(value) in plain})
        for module in model.modules()
    ]
    cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[index for index in devices if index is not None]):
        try:
            yield
        finally:
            parametrize._cache_enabled = cached
            for module, attributes in before:
                vars(module).update(attributes)


@contextlib.contextmanager
def _suppress_rnn_warnings() -> Iterator[None]:
    """No warning that recurrent layers list their weights anew: an export puts the lists back."""
    with warnings.catch_warnings():
        weights = r"(self\.[\w.]*_flat_weights\[\d+\](, )?)+"
        message = rf"The tensor attributes? {weights} (was|were) assigned during export"
        warnings.filterwarnings("ignore", message)
        yield


@contextlib.contextmanager
def _progress(model: nn.Module) -> Iterator[None]:
    """Say on the error stream that a capture is under way, once it takes more than two seconds."""
    line = f"labeltrace: capturing {type(model).__name__} (once for each mode and input size) ..."
    timer = threading.Timer(_SECONDS_BEFORE_PROGRESS, print, [line], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Errors.


def _first_lines(error: Exception, count: int = 1) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *([" ".join(lines[:count])] if lines else [])])


def model_line(error: BaseException) -> str:
    """The innermost line that an error passed through outside torch and Python's own library."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not _is_foreign(frame.filename):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return ""


def _is_foreign(file: str) -> bool:
    """Whether a file belongs to torch, to Python's own library or to this module."""
    standard = file.startswith(_PYTHON_FOLDER) and "site-packages" not in file
    return standard or file == __file__ or file.startswith(_TORCH_FOLDER)


def _explain(
    model: nn.Module, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str:
    leaves, _ = tree_flatten((args, dict(kwargs)))
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves if isinstance(leaf, Tensor))
    line = model_line(error)
    where = f"\n  stopped at {line}" if line else ""
    return (
        f"{type(model).__name__} cannot be captured with inputs of shape {shapes}{where}\n"
        f"  {_first_lines(error)}\n"
        "  The model must run on these inputs, and torch.export must be able to follow its code: "
        "no branch or size may depend on the values of tensors. Change that line, or align the "
        "part of the model that has none (for a detector: its backbone)."
    )
