"""The label half of a generated graph as a Python function that runs.

    from labeltrace.label_ops import *

    def label_graph(labels, p_layer_weight):
        y = read_image(labels, [8, 8])
        y_1 = mix(y, p_layer_weight, 'o i, a c i -> a c o')  # layer
        y_2 = write_output(y_1, [-1, -1, -1], 1)
        return y_2

The first parameter is the label image. The others are what the label steps read of the forward
half, under the names of the graph's nodes: parameters, queries, keys, attention maps. A label
function of the user's own is a parameter as well. Sizes that depend on the batch are computed
from the label image's own, `batch = batch_size(labels)`. A name that is also the name of a label
function has an underscore after it.
"""

from __future__ import annotations

import keyword
import operator
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch.fx import Graph, Node

from labeltrace import label_ops
from labeltrace.codegen.batch_sizes import SIGNS
from labeltrace.layout import infix

NAME: Final = "label_graph"
OUTPUT: Final = "out"
"""The name of an output of the model that a label function returns next to labels."""

_CODE_WIDTH: Final = 80  # of statements; notes are aligned after it
_LINE_WIDTH: Final = 100  # of the list of parameters


def label_code(graph: Graph, labels: Node, notes: Mapping[Node, str], outputs: int) -> str:
    """The label half of a graph as the text of a Python function, `label_graph`.

    Args:
        graph: forward and label nodes; its output node returns the labels last.
        labels: the placeholder of the label image.
        notes: for each label node, a note that becomes a comment.
        outputs: how many labels the graph returns.
    """
    names = _Names()
    parameters = [names.of(labels)]
    lines: list[tuple[str, str]] = []
    for node in graph.nodes:
        if node not in notes or _is_part_of_another_line(node):
            continue
        for read in _forward_nodes(node, notes):
            if read is not labels and read not in names:
                parameters.append(names.of(read))
        function = node.target
        if _is_users_own(function) and function not in names:
            parameters.append(names.of(function))
        lines.append((_statement(node, names), notes[node]))
    (output,) = graph.find_nodes(op="output")
    leaves: Any = output.args[0]
    returned = ", ".join(names.text(leaf) for leaf in leaves[len(leaves) - outputs :])
    body = [*_with_notes(lines), f"    return {returned}"]
    return "\n".join([_signature(parameters), *body])


class _Names:
    """Names of nodes and of the user's functions, each used once."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._used = {*label_ops.__all__, *keyword.kwlist, OUTPUT}

    def __contains__(self, named: Any) -> bool:
        return self._key(named) in self._names

    def of(self, named: Any) -> str:
        """The name of a node or of a label function of the user's own."""
        key = self._key(named)
        if key not in self._names:
            wanted = named.name if isinstance(named, Node) else re.sub(r"\W", "_", named.__name__)
            self._names[key] = self._unused(wanted)
        return self._names[key]

    def text(self, argument: Any) -> str:
        """An argument of a call as Python."""
        if isinstance(argument, (list, tuple)):
            return "[" + ", ".join(self.text(item) for item in argument) + "]"
        if not isinstance(argument, Node):
            return repr(argument)
        if argument.target in SIGNS:
            left, right = map(self.text, argument.args)
            return infix(left, SIGNS[argument.target], right)
        return self.of(argument)

    def _key(self, named: Any) -> Any:
        """What has one name: a node, or the user's function, whatever step calls it."""
        return named if isinstance(named, Node) else id(getattr(named, "__wrapped__", named))

    def _unused(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._used:
            name = f"{wanted}_" if count == 1 else f"{wanted}_{count}"
            count += 1
        self._used.add(name)
        return name


def _is_users_own(function: Any) -> bool:
    """Whether a function is not one of those that `label_ops` exports."""
    return getattr(label_ops, function.__name__, None) is not function


def _forward_nodes(node: Node, notes: Mapping[Node, str]) -> Iterator[Node]:
    """The nodes that a label node reads which are no label nodes."""
    return (read for read in node.all_input_nodes if read not in notes)


def _is_part_of_another_line(node: Node) -> bool:
    """Whether a node is the labels of a joint call, or arithmetic of sizes."""
    return node.target is operator.getitem or node.target in SIGNS


def _statement(node: Node, names: _Names) -> str:
    """One line of the body; a joint call is unpacked into the model's output and labels."""
    function: Any = node.target
    name = names.of(function) if _is_users_own(function) else function.__name__
    arguments = [names.text(argument) for argument in node.args]
    arguments += [f"{key}={names.text(value)}" for key, value in node.kwargs.items()]
    call = f"{name}({', '.join(arguments)})"
    if function is not label_ops.attention_with_labels:
        return f"{names.of(node)} = {call}"
    labels = [names.of(user) for user in node.users if user.args[1] == 1]
    return f"{', '.join([OUTPUT, *labels])} = {call}"


def _with_notes(lines: list[tuple[str, str]]) -> Iterator[str]:
    width = min(max((len(code) for code, _ in lines), default=0), _CODE_WIDTH)
    for code, note in lines:
        yield f"    {code:<{width}}  # {note}" if note else f"    {code}"


def _signature(parameters: list[str]) -> str:
    line = f"def {NAME}({', '.join(parameters)}):"
    if len(line) <= _LINE_WIDTH:
        return line
    wrapped = textwrap.fill(
        ", ".join(parameters) + ",",
        width=_LINE_WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"def {NAME}(\n{wrapped}\n):"
