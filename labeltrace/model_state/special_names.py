"""Names that the walk treats in their own way."""

from __future__ import annotations

import torch

GLOBAL_HOOKS = tuple(
    name
    for name in vars(torch.nn.modules.module)
    if name.startswith("_global_") and name.endswith(("hooks", "hook", "kwargs", "called"))
)
"""The names of the dicts of hooks that torch runs for every module."""

UNREAD_ATTRIBUTES = frozenset(
    {
        *("_non_persistent_buffers_set", "_state_dict_hooks", "_state_dict_pre_hooks"),
        *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
    }
)
"""Attributes of every module that serve state dicts alone."""

NEVER_CALLED = frozenset(
    {
        *("__init__", "__new__", "__post_init__", "__init_subclass__", "__class_getitem__"),
        *("__repr__", "__str__", "__format__", "__dir__", "__sizeof__", "__del__", "__copy__"),
        *("__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__deepcopy__"),
        *("__subclasshook__", "__instancecheck__", "__subclasscheck__"),
    }
)
"""Special methods that are called by name alone; all others may be called without their name."""

CONSTRUCTORS = ("__init__", "__new__", "__post_init__")
"""Special methods of a class that a call of the class calls."""
