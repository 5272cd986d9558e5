"""Modules that are no models in Python, or that wrap one: what to align instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from labeltrace.errors import CaptureError

WRAPPERS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
        ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
        ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): (
            "module"
        ),
        ("torch._dynamo.eval_frame", "OptimizedModule"): "_orig_mod",
    }
)
"""Classes that wrap a model, by module and name, and the attribute that holds the model.

They are known by name, since to import them would more than double the time to import labeltrace.
"""


def check_model(model: object) -> None:
    """Check that something is a model whose Python code can be followed.

    Raises:
        TypeError: it is no module, a wrapper of one, a TorchScript module, or has one inside.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"labeltrace takes a torch.nn.Module, not {type(model).__name__}")
    inside = _wrapped_in(model)
    if inside:
        kind = type(model).__name__
        wrap = "torch.compile" if kind == "OptimizedModule" else kind
        raise TypeError(
            f"{kind} wraps a model; align first, then wrap: "
            f"{wrap}(labeltrace.align(wrapped.{inside}))"
        )
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"its module {path}" if path else "it"
            raise TypeError(
                f"{type(model).__name__} cannot be followed: {where} is a TorchScript module, "
                "which has no Python code; align the module that torch.jit traced or scripted"
            )


def check_parameters(model: nn.Module, image: Tensor) -> None:
    """Check that a model has all its parameters, with values, as plain tensors.

    Raises:
        CaptureError: some are still to be made by a lazy module, lie on the meta device where the
            image does not, or are packed for quantized arithmetic.
    """
    check_initialized(model)
    for path, module in model.named_modules():
        where = f"{path or 'the model'} ({type(module).__name__})"
        if type(module).__module__.startswith("torch.ao.nn.quantized"):
            raise CaptureError(
                f"{where} is quantized, and torch.export cannot read its packed weights; align the "
                "model in floating point that it was made from"
            )
    check_devices(model, image)


def check_devices(model: nn.Module, image: Tensor) -> None:
    """Check that a model's parameters have values.

    Raises:
        CaptureError: some lie on the meta device, where the image does not.
    """
    if image.is_meta:
        return
    for path, module in model.named_modules():
        where = f"{path or 'the model'} ({type(module).__name__})"
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            raise CaptureError(
                f"{where} has parameters on the meta device, without values, and the images are "
                f"on {image.device}; load the weights, or pass images on the meta device"
            )


def check_initialized(model: nn.Module) -> None:
    """Check that no lazy module is left whose parameters have no shape yet.

    Raises:
        CaptureError: there is one.
    """
    for path, module in model.named_modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if any(torch.nn.parameter.is_lazy(tensor) for tensor in tensors):
            raise CaptureError(
                f"{path or 'the model'} ({type(module).__name__}) has parameters without a shape "
                "yet; call the plain model once, so that its lazy modules make them"
            )


def _wrapped_in(model: nn.Module) -> str:
    """The attribute that holds the model inside a wrapper; empty for any other module."""
    names = ((base.__module__, base.__name__) for base in type(model).__mro__)
    return next((WRAPPERS[name] for name in names if name in WRAPPERS), "")
