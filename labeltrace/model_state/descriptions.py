"""Short words for a value, as it was when a survey met it."""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor

from labeltrace.model_state.kinds import EMPTY_TYPES, Kind, kind_of
from labeltrace.model_state.stores import ABSENT, Entries, Fixed, Items, Members
from labeltrace.model_state.survey import Survey

LONGEST = 60
BRACKETS: dict[Any, str] = {list: "[]", tuple: "()", set: "{}", dict: "{}"}


def describe(value: Any, survey: Survey, depth: int = 2) -> str:
    """A value in at most about sixty characters; no code of the user's runs for it."""
    text = _description(value, survey, depth)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _description(value: Any, survey: Survey, depth: int) -> str:
    if value is ABSENT:
        return "nothing"
    if isinstance(value, Tensor):
        return f"a tensor of {tuple(value.shape)}"
    if kind_of(value) is Kind.VALUE:
        return repr(value)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return f"`{value.__qualname__}`"
    number = survey.numbers.get(id(value))
    cls = type(value)
    if number is None:
        empty = cls in EMPTY_TYPES and cls in BRACKETS
        return BRACKETS[cls] if empty else f"an object of {cls.__name__}"
    if cls not in BRACKETS or depth == 0:
        return f"an object of {cls.__name__}"
    items = []
    for part in survey.nodes[number].parts:
        for label, held in zip(part.labels, part.values, strict=True):
            text = _description(held, survey, depth - 1)
            if isinstance(part.store, Entries):
                items.append(f"{_description(label, survey, 0)}: {text}")
            elif isinstance(part.store, Items | Members | Fixed):
                items.append(text)
    return f"{BRACKETS[cls][0]}{', '.join(items)}{BRACKETS[cls][1]}"
