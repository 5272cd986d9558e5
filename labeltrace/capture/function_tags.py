"""Tags on the nodes of calls of Python functions that have a rule.

While a model is captured, every module-level name and class attribute that holds such a function is
bound to a wrapper that adds the tags.  Afterwards the function is restored.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.fx import traceback

from labeltrace.errors import CaptureError

FUNCTION_TAG = "labeltrace_function"

Function = Callable[..., Any]


@contextlib.contextmanager
def tag_function_calls(functions: Iterable[Function]) -> Iterator[dict[str, Function]]:
    """Tag the nodes of every call of `functions`; yields the functions by tag, which fill up.

    Raises:
        CaptureError: a function is bound to no module or class, so that its calls cannot be seen.
    """
    tags: dict[str, Function] = {}
    bindings = [
        (owner, name, function, _tagging(function, tags))
        for function in functions
        for owner, name in _places(function)
    ]
    with contextlib.ExitStack() as stack:
        if bindings:
            stack.enter_context(traceback.preserve_node_meta())
        try:
            for owner, name, _, wrapper in bindings:
                setattr(owner, name, wrapper)
            yield tags
        finally:
            for owner, name, function, _ in bindings:
                setattr(owner, name, function)


def _tagging(function: Function, tags: dict[str, Function]) -> Function:
    calls = itertools.count()

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        tag = f"{function.__module__}.{function.__qualname__}#{next(calls)}"
        tags[tag] = function
        with traceback.annotate({FUNCTION_TAG: tag}):
            return function(*args, **kwargs)

    return wrapper


def _places(function: Function) -> list[tuple[Any, str]]:
    """The bindings of a function: in modules under any name, and in the class that defines it."""
    places: list[tuple[Any, str]] = [
        (module, name)
        for module in list(sys.modules.values())
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is function
    ]
    owner: Any = sys.modules.get(function.__module__)
    *path, last = function.__qualname__.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    if path and owner is not None and vars(owner).get(last) is function:
        places.append((owner, last))
    if not places:
        raise CaptureError(
            f"{function.__qualname__} has a rule but is bound to no module or class, so its calls "
            "cannot be seen; define it at the top level of a module"
        )
    return places
