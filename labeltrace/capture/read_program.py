"""From an exported program to the record of a capture."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from labeltrace.capture.batch import BatchPolicy, recorded_calls
from labeltrace.capture.captured import CallTags, Capture, StateInput
from labeltrace.capture.fix_rnn_state_shapes import fix_rnn_state_shapes
from labeltrace.capture.inline_subgraphs import inline_subgraphs
from labeltrace.errors import CaptureError


def read_program(
    program: ExportedProgram,
    model: nn.Module,
    traced_leaf: int,
    channel_dim: int,
    batch: BatchPolicy,
    tags: CallTags,
) -> Capture:
    """The record of a model's program; `traced_leaf` is the index of the input that carries labels.

    Raises:
        CaptureError: the program reads or writes what a call cannot hand over.
    """
    state, constants, inputs = _inputs(program)
    _check_outputs(program)
    calls = recorded_calls(program)
    graph = inline_subgraphs(program.graph, program.graph_module)
    fix_rnn_state_shapes(graph)
    input_spec, output_spec = program.call_spec.in_spec, program.call_spec.out_spec
    assert input_spec is not None  # torch.export fills both in
    assert output_spec is not None
    return Capture(
        graph=graph,
        root=program.graph_module,
        state=state,
        constants=constants,
        traced_input=inputs[traced_leaf],
        channel_dim=channel_dim,
        input_spec=input_spec,
        output_spec=output_spec,
        batch=batch,
        switches_modes=graph is not program.graph,
        module_types={name: type(module) for name, module in model.named_modules()},
        functions=tags.functions,
        checkpoints=tags.checkpoints,
        calls=calls,
    )


def _inputs(
    program: ExportedProgram,
) -> tuple[tuple[StateInput, ...], tuple[Any, ...], tuple[str, ...]]:
    """Parameters and buffers, constants, and the placeholders of the call's own leaves."""
    state: list[StateInput] = []
    constants: list[Any] = []
    inputs: list[str] = []
    for spec in program.graph_signature.input_specs:
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
    return tuple(state), tuple(constants), tuple(inputs)


def _check_outputs(program: ExportedProgram) -> None:
    for output in program.graph_signature.output_specs:
        if output.kind is not OutputKind.USER_OUTPUT:
            raise CaptureError(
                f"the model writes {output.target} as a side effect of its forward "
                f"({output.kind.name.lower().replace('_', ' ')}), which labels cannot ride beside"
            )
