"""The probe: channels appended to a batch, which tell each pixel's sources after mixing.

Whatever mixes all channels of a batch alike, and linearly, mixes the probe as well, and so reveals
its partners and weights. The number of a sample would do as a probe, together with its square: two
channels, two unknowns. But dividing one by the other amplifies rounding: in float32, with 1024
samples, neighbours are no longer told apart where the partner's weight is below a tenth. So the
number is written in binary, each bit as two channels: one holds 1 where the bit is 0, the other
where it is 1. Of the two, the one that is zero in the image itself shows the partner's weight, or
zero where the partner has the same bit. Nothing is ever subtracted, so that weights are as precise
as the dtype is, down to the smallest.

The last channel holds random numbers, different in every sample and pixel: a witness to what the
bits cannot show, such as pixels that were moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WITNESS_SEED = 0
ROUNDING_STEPS = 4  # how many roundings a mixer's own arithmetic may add up to
BYTE = 255
BYTE_ROUNDING = 2.5  # a weight and a product may each be off by one, and a half for the blend


@dataclass(frozen=True, eq=False)
class Sources:
    """What each pixel of a mixed batch is made of.

    Attributes:
        partner: (B,) int64; a number that no sample has where none fits.
        weights: (B, 2, H, W), of the image itself and of its partner, at the precision of the
            images or float32, whichever is higher. They sum to one.
        is_total: (B,) bool, the weights of all sources sum to one and none is negative.
        is_pair: (B,) bool, one partner explains all pixels of the image.
        rounding: how far a weight may be off.
    """

    partner: Tensor
    weights: Tensor
    is_total: Tensor
    is_pair: Tensor
    rounding: float


def number_channels(images: Tensor) -> Tensor:
    """Return the number of every sample as channels of images: (B, 2 · bits, H, W), their dtype."""
    bits = _bits(len(images), images.device)
    flags = torch.cat([~bits, bits], dim=1).to(images.dtype) * _one(images.dtype)
    return flags[..., None, None].expand(-1, -1, *images.shape[2:])


def witness_channel(images: Tensor) -> Tensor:
    """Return random numbers as a channel of images, the same at every call: (B, 1, H, W)."""
    shape = (len(images), 1, *images.shape[2:])
    generator = torch.Generator(images.device).manual_seed(WITNESS_SEED)
    witness = torch.rand(shape, generator=generator, device=images.device, dtype=torch.float32)
    return (witness * _one(images.dtype)).to(images.dtype)


def read_sources(numbers: Tensor) -> Sources:
    """Read the sources of every pixel from the channels of numbers after mixing."""
    bits = _bits(len(numbers), numbers.device)
    rounding = rounding_of(numbers.dtype)
    if not numbers.is_floating_point():
        numbers = numbers / BYTE
    numbers = numbers.to(exact_dtype(numbers.dtype))
    of_zero, of_one = numbers.chunk(2, dim=1)
    # Comparisons with NaN are false, so each test is written to pass good values only.
    is_total = _largest((of_zero + of_one).sub_(1).abs_()) <= rounding
    is_total &= numbers.amin(dim=(1, 2, 3)) >= -rounding

    is_one = bits[..., None, None]
    other = torch.where(is_one, of_zero, of_one)  # (B, bits, H, W), zero in the image itself
    largest = other.amax(dim=(2, 3))
    differs = largest > largest.amax(dim=1, keepdim=True) / 2  # all that differ are equally large
    sample, bit = torch.arange(len(bits), device=bits.device), largest.argmax(dim=1)
    partner_weight = other[sample, bit].unsqueeze(1)
    own_weight = torch.where(is_one[sample, bit], of_one[sample, bit], of_zero[sample, bit])
    off = other.addcmul_(partner_weight, differs[..., None, None].to(other.dtype), value=-1).abs_()
    is_pair = _largest(off.amax(dim=1, keepdim=True) - rounding * partner_weight) <= 0

    partner = ((bits ^ differs) * 2 ** torch.arange(bits.shape[1], device=bits.device)).sum(dim=1)
    weights = torch.cat([own_weight.unsqueeze(1), partner_weight], dim=1).clamp_(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return Sources(partner, weights, is_total, is_pair & (partner < len(bits)), rounding)


def is_their_blend(mixed: Tensor, images: Tensor, sources: Sources) -> Tensor:
    """Compare mixed images with the blend of their sources, in every channel and pixel: (B,) bool.

    Args:
        mixed: (B, C, H, W), after mixing.
        images: (B, C, H, W), before.
        sources: as read from the probe.
    """
    dtype = exact_dtype(mixed.dtype)
    own = images.to(dtype)
    theirs = own[sources.partner.clamp(max=len(own) - 1)]
    off = (own * sources.weights[:, :1]).addcmul_(theirs, sources.weights[:, 1:]).sub_(mixed).abs_()
    if not mixed.is_floating_point():
        return _largest(off) <= BYTE_ROUNDING
    allowed = theirs.abs_().add_(own.abs()).mul_(rounding_of(mixed.dtype))
    return _largest(off.sub_(allowed)) <= 0


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute with: that of the images, float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def rounding_of(dtype: torch.dtype) -> float:
    """Return how far a weight may be off that is read from images of this dtype."""
    if not dtype.is_floating_point:
        return 1.01 / BYTE
    coarsest = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)  # mixers draw in float32
    return ROUNDING_STEPS * coarsest


def _one(dtype: torch.dtype) -> int:
    """Return what stands for one: as much as the dtype can tell apart from zero."""
    return 1 if dtype.is_floating_point else BYTE


def _largest(values: Tensor) -> Tensor:
    """Return the largest value of each sample, (B,): NaN where there is one."""
    return values.amax(dim=(1, 2, 3))


def _bits(batch: int, device: torch.device) -> Tensor:
    """Return the binary digits of every sample's number, lowest first: (B, bits) bool."""
    count = max(1, (batch - 1).bit_length())
    place = torch.arange(count, device=device)
    return ((torch.arange(batch, device=device)[:, None] >> place) & 1).bool()
