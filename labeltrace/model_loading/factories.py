"""Models by `package.module:factory`."""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from labeltrace.errors import ModelLoadingError
from labeltrace.model_loading.building_errors import wrap_building_errors


def from_factory(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Import a factory and call it with `options`; a module instance is returned unchanged.

    Raises:
        ModelLoadingError: it cannot be imported, its code fails, or it returns no module.
    """
    module_name, _, attribute = name.partition(":")
    factory = _find_attribute(_import_module(module_name, name), attribute, name)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelLoadingError(
            f"{name} is of type {type(factory).__name__}; it must be a callable without arguments "
            f"that returns a torch.nn.Module"
        )
    with wrap_building_errors(name):
        model = factory(**options)
    if not isinstance(model, nn.Module):
        raise ModelLoadingError(
            f"{name}() returned a {type(model).__name__}, not a torch.nn.Module; return the model "
            f"itself"
        )
    return model


def _import_module(module_name: str, name: str) -> Any:
    try:
        with wrap_building_errors(f"the module {module_name!r}", "importing"):
            return importlib.import_module(module_name)
    except ModelLoadingError as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if missing is None or not f"{module_name}.".startswith(f"{missing}."):
            raise  # the module was found, but its own code failed
        raise ModelLoadingError(
            f"{name}: there is no module {missing!r} to import; install it, or run in the folder "
            f"that contains it (for a timm model, write only its name)"
        ) from cause


def _find_attribute(module: Any, attribute: str, name: str) -> Callable[[], object] | object:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        callables = [key for key, value in vars(module).items() if callable(value)]
        close = difflib.get_close_matches(attribute, callables)
        suggestion = f"; similar names: {', '.join(close)}" if close else ""
        raise ModelLoadingError(
            f"{name}: the module {module.__name__} has nothing named {attribute!r}{suggestion}"
        ) from error
