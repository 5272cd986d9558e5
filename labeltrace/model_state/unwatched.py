"""What a key cannot see change: the honest list."""

from __future__ import annotations

from torch import nn

from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.paths import path_of
from labeltrace.model_state.survey import Survey
from labeltrace.model_state.tokens import array_content


def unwatched(model: nn.Module) -> tuple[str, ...]:
    """One line for each object whose changes no key and no snapshot can see.

    These are iterators, whose position is hidden, and numpy arrays too large to be compared.

    Examples:
        >>> model = nn.ReLU()
        >>> model.schedule = iter([1, 2, 3])
        >>> unwatched(model)
        ('`schedule` is an iterator (list_iterator): its position cannot be seen',)
    """
    survey = Survey(model)
    found = []
    for number, node in enumerate(survey.nodes):
        name = type(node.value).__name__
        if node.kind is Kind.ITERATOR:
            text = f"is an iterator ({name}): its position cannot be seen"
        elif node.kind is Kind.ARRAY and not node.parts and array_content(node.value) is None:
            text = f"is a numpy array of {node.value.nbytes} bytes: writes to it cannot be seen"
        else:
            continue
        found.append(f"`{path_of(survey, number)}` {text}")
    return tuple(found)
