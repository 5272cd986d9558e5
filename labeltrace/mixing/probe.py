"""The probe: channels appended to a batch, from which the sources of each pixel are decoded.

A mixer that treats all channels in the same way, and linearly, mixes the probe as well, and the
mixed probe shows partners and weights. Two channels would be enough in theory: the index of a
sample and its square, for the two unknowns. But solving for the partner divides by its weight: in
float32, with 1024 samples, neighboring indices cannot be distinguished if the weight is below 0.1.
The index is therefore written in binary, with one channel for each bit. Bits that differ between an
image and its partner change by the partner's weight, the others do not change. Nothing is divided,
and the partner is known if its weight is above the rounding of float32.

Two further channels show what the bits cannot. One is 1 everywhere and shows the sum of all
weights. The other holds random numbers, different in each sample and pixel, and verifies the
sources that were decoded, even between equal images: pixels may have been moved, and three sources
at certain weights change the same bits as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_SEED = 0
NOISE, TOTAL, BITS = range(3)  # the channels of the probe; BITS is the first bit
ROUNDING = 4 * torch.finfo(torch.float32).eps  # mixers draw weights in float32 at best
BYTE = 255
BYTE_ROUNDING = 1.01 / BYTE
BYTE_BLEND_ROUNDING = 2.5  # weight and product may each be off by 1, their sum by 0.5


@dataclass(frozen=True, eq=False)
class DecodedSources:
    """The sources of each pixel of a mixed batch, decoded from its probe.

    Attributes:
        partner: (B,) int64, the index of the partner; the image's own index if it has none.
        weight: (B, 1, H, W), the partner's weight; float32, or float64 for images in float64.
        is_average: (B,) bool, whether the weights of all sources sum to one and none is negative.
        is_pair: (B,) bool, whether one partner explains all pixels.
    """

    partner: Tensor
    weight: Tensor
    is_average: Tensor
    is_pair: Tensor


def append_probe(images: Tensor) -> Tensor:
    """Append the probe to images (B, C, H, W): (B, C + 2 + bits, H, W)."""
    batch, channels, height, width = images.shape
    bits = _index_bits(batch, images.device)
    one = 1 if images.is_floating_point() else BYTE
    extended = images.new_empty((batch, channels + BITS + bits.shape[1], height, width))
    extended[:, :channels] = images
    probe = extended[:, channels:]
    generator = torch.Generator(images.device).manual_seed(NOISE_SEED)
    noise = torch.rand(
        (batch, height, width), generator=generator, device=images.device, dtype=torch.float32
    )
    probe[:, NOISE] = noise * one
    probe[:, TOTAL] = one
    probe[:, BITS:] = (bits.to(images.dtype) * one)[..., None, None]
    return extended


def decode_sources(probe: Tensor) -> DecodedSources:
    """Decode the sources of every pixel from a probe after mixing."""
    bits = _index_bits(len(probe), probe.device)
    rounding = weight_tolerance(probe.dtype)
    shares = probe[:, TOTAL:]
    if not probe.is_floating_point():
        shares = shares / BYTE
    # Comparisons with NaN are false, so each test is written to pass good values only.
    is_average = _max_per_sample((shares[:, :1] - 1).abs_()) <= rounding
    is_average &= shares.amin(dim=(1, 2, 3)) >= -rounding

    change = (shares[:, 1:] - bits[..., None, None].to(shares.dtype)).abs_()
    max_change = change.amax(dim=(2, 3))  # (B, bits): the partner's weight, or 0 for equal bits
    highest, bit = max_change.max(dim=1, keepdim=True)
    differs = (max_change > highest / 2) & (highest > rounding)
    weight = change.gather(1, bit[..., None, None].expand(-1, -1, *change.shape[2:]))
    weight *= differs.any(dim=1)[:, None, None, None]
    change.addcmul_(weight, differs[..., None, None].to(weight.dtype), value=-1).abs_()

    partner = ((bits ^ differs) * 2 ** torch.arange(bits.shape[1], device=bits.device)).sum(dim=1)
    is_pair = (_max_per_sample(change) <= rounding) & (partner < len(bits))
    return DecodedSources(partner, weight.clamp_(max=1), is_average, is_pair)


def is_blend_of_sources(mixed: Tensor, images: Tensor, sources: DecodedSources) -> Tensor:
    """Whether mixed images are the blend of their sources in every channel and pixel: (B,) bool.

    Args:
        mixed: (B, C, H, W), images after mixing.
        images: (B, C, H, W), images before mixing.
        sources: decoded from the probe.
    """
    own = images.to(sources.weight.dtype)
    partners = own[sources.partner.clamp(max=len(own) - 1)]
    deviation = torch.lerp(own, partners, sources.weight).sub_(mixed).abs_().amax(dim=(2, 3))
    if not mixed.is_floating_point():
        return (deviation <= BYTE_BLEND_ROUNDING).all(dim=1)
    # A weight that is too small to be decoded may belong to any image of the batch.
    allowed = 2 * weight_tolerance(mixed.dtype) * own.abs().amax(dim=(0, 2, 3))
    return (deviation <= allowed).all(dim=1)


def weight_tolerance(dtype: torch.dtype) -> float:
    """The tolerance of weights decoded from images of this dtype."""
    return ROUNDING if dtype.is_floating_point else BYTE_ROUNDING


def _max_per_sample(values: Tensor) -> Tensor:
    """The largest value of each sample, (B,); NaN if it has one."""
    return values.amax(dim=(1, 2, 3))


def _index_bits(batch: int, device: torch.device) -> Tensor:
    """The binary digits of every sample's index, lowest first: (B, bits) bool."""
    count = max(1, (batch - 1).bit_length())
    position = torch.arange(count, device=device)
    return ((torch.arange(batch, device=device)[:, None] >> position) & 1).bool()
