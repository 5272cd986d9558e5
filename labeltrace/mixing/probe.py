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
    """

    partner: Tensor
    weights: Tensor
    is_total: Tensor
    is_pair: Tensor


def append_probe(images: Tensor) -> Tensor:
    """Append the probe to images (B, C, H, W), floating point or uint8, as further channels."""
    bits = _bits(images.shape[0], images.device)
    flags = torch.cat([~bits, bits], dim=1)[..., None, None].expand(-1, -1, *images.shape[2:])
    shape = (images.shape[0], 1, *images.shape[2:])
    generator = torch.Generator(images.device).manual_seed(WITNESS_SEED)
    witness = torch.rand(shape, generator=generator, device=images.device, dtype=torch.float32)
    scale = 1 if images.is_floating_point() else BYTE
    return torch.cat(
        [images, flags.to(images.dtype) * scale, (witness * scale).to(images.dtype)], dim=1
    )


def read_sources(mixed: Tensor, channels: int) -> Sources:
    """Read the sources of every pixel from a mixed batch whose first channels are the images'."""
    batch = mixed.shape[0]
    bits = _bits(batch, mixed.device)
    probe = mixed[:, channels:-1].to(exact_dtype(mixed.dtype))
    if not mixed.is_floating_point():
        probe = probe / BYTE
    of_zero, of_one = probe.chunk(2, dim=1)
    is_one = bits[..., None, None]
    own = torch.where(is_one, of_one, of_zero)  # (B, bits, H, W): the weight of the same bit
    other = torch.where(is_one, of_zero, of_one)  # and that of the other one

    weight = other.amax(dim=1, keepdim=True)
    largest = other.amax(dim=(2, 3))
    differs = largest > largest.amax(dim=1, keepdim=True) / 2  # all that differ are equally large
    expected = weight * differs[..., None, None]
    rounding = rounding_of(mixed.dtype)
    total = own + other
    # Comparisons with NaN are false, so each test is written to pass good values only.
    is_total = ((total - 1).abs() <= rounding) & (own >= -rounding) & (other >= 0)
    is_pair = (other - expected).abs() <= rounding * weight

    place = 2 ** torch.arange(bits.shape[1], device=mixed.device)
    partner = ((bits ^ differs) * place).sum(dim=1)
    weights = torch.cat([own.amin(dim=1, keepdim=True), weight], dim=1)
    return Sources(
        partner,
        weights / weights.sum(dim=1, keepdim=True),
        is_total.flatten(1).all(dim=1),
        is_pair.flatten(1).all(dim=1) & (partner < batch),
    )


def is_their_blend(mixed: Tensor, whole: Tensor, sources: Sources) -> Tensor:
    """Compare a mixed batch with the blend of its sources, in every channel and pixel: (B,) bool.

    Args:
        mixed: (B, C, H, W), the batch after mixing, with its probe.
        whole: (B, C, H, W), the batch before, with its probe.
        sources: as read from `mixed`.
    """
    dtype = exact_dtype(mixed.dtype)
    own = whole.to(dtype)
    theirs = own[sources.partner.clamp(max=len(own) - 1)]
    expected = own * sources.weights[:, :1] + theirs * sources.weights[:, 1:]
    allowed = rounding_of(mixed.dtype) * (own.abs() + theirs.abs())
    if not mixed.is_floating_point():
        allowed = torch.full_like(allowed, BYTE_ROUNDING)
    return ((mixed.to(dtype) - expected).abs() <= allowed).flatten(1).all(dim=1)


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute with: that of the images, float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def rounding_of(dtype: torch.dtype) -> float:
    """Return how far a weight may be off that is read from images of this dtype."""
    return ROUNDING_STEPS * torch.finfo(dtype).eps if dtype.is_floating_point else 1.01 / BYTE


def _bits(batch: int, device: torch.device) -> Tensor:
    """Return the binary digits of every sample's number, lowest first: (B, bits) bool."""
    count = max(1, (batch - 1).bit_length())
    place = torch.arange(count, device=device)
    return ((torch.arange(batch, device=device)[:, None] >> place) & 1).bool()
