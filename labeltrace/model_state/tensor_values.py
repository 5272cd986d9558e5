"""Values of tensors: copies, comparison bit for bit, and writing them back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.model_state.tokens import tensor_form


@dataclass(frozen=True, slots=True)
class TensorValue:
    """What a tensor held at one moment.

    Attributes:
        tensor: the tensor itself.
        form: its shape, strides, dtype, device and so on.
        version: its version counter; None for a tensor of inference mode.
        copy: its values, detached; None where there are none to copy (fake or not yet made).
    """

    tensor: Tensor
    form: tuple[object, ...]
    version: int | None
    copy: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor) -> TensorValue:
        """The present value of a tensor."""
        version = None if tensor.is_inference() else tensor._version
        copy = tensor.detach().clone() if _has_values(tensor) else None
        return cls(tensor, tensor_form(tensor), version, copy)

    def equals(self, other: TensorValue) -> bool:
        """Whether form and values are the same, bit for bit; NaN equals itself."""
        if self.form != other.form:
            return False
        if self.copy is None or other.copy is None:
            return self.copy is other.copy and self.version == other.version
        return same_bits(self.copy, other.copy)

    def restore(self) -> None:
        """Write the values back into the tensor, without autograd, and reset its version."""
        tensor, copy = self.tensor, self.copy
        if copy is None:
            return
        if tensor_form(tensor) != self.form:
            tensor.data = copy.clone()
            if tensor.is_leaf:
                tensor.requires_grad_(bool(self.form[-1]))
        elif same_bits(tensor.detach(), copy):
            if self.version is None or tensor._version == self.version:
                return
        elif tensor.is_inference():
            with torch.inference_mode():
                _write(tensor, copy)
        else:
            # A detached sparse tensor has indices of its own.
            _write(tensor.data if tensor.layout is torch.strided else tensor, copy)
        if self.version is not None:
            torch._C._autograd._unsafe_set_version_counter((tensor,), (self.version,))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of the same form hold the same bits."""
    if a.device.type == "meta" or a.numel() == 0:
        return True
    if a.is_nested:
        return all(map(same_bits, a.unbind(), b.unbind()))
    if a.is_quantized:
        return torch.equal(a, b)
    if a.layout is not torch.strided:
        return same_bits(a.to_dense(), b.to_dense())
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _write(tensor: Tensor, values: Tensor) -> None:
    """Copy values; an element that is expanded along an axis cannot be written more than once."""
    if tensor.layout is torch.strided and not tensor.is_nested:
        for axis, stride in enumerate(tensor.stride()):
            if stride == 0 and tensor.shape[axis] > 1:
                tensor, values = tensor.narrow(axis, 0, 1), values.narrow(axis, 0, 1)
    tensor.copy_(values)


def _has_values(tensor: Tensor) -> bool:
    return not (torch.nn.parameter.is_lazy(tensor) or hasattr(tensor, "fake_mode"))
