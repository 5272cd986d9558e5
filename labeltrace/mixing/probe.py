"""The probe: channels appended to a batch, which tell each pixel's sources after mixing.

Whatever mixes all channels of a batch alike, and linearly, mixes the probe as well, and so reveals
its partners and weights. The number of a sample would do as a probe, together with its square: two
channels, two unknowns. But solving for the partner divides by the weight: in float32, with 1024
samples, neighbours are no longer told apart where the partner's weight is below a tenth. So the
number is written in binary, a channel for each bit. Bits that differ between an image and its
partner change by the partner's weight, the others not at all: nothing is divided, and the partner
is known wherever its weight is above the rounding of float32.

Two more channels tell what the bits cannot. One is 1 everywhere, and shows the sum of all weights.
The other holds random numbers, different in each sample and pixel, and bears witness whether the
sources that were read are true, even where images are alike: pixels may have been moved, and three
sources at the right weights can change the same bits as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WITNESS_SEED = 0
WITNESS, TOTAL, NUMBER = range(3)  # the channels of the probe; from NUMBER on the bits
ROUNDING = 4 * torch.finfo(torch.float32).eps  # mixers draw weights in float32 at best
BYTE = 255
BYTE_ROUNDING = 1.01 / BYTE
BYTE_BLEND_ROUNDING = 2.5  # a weight and a product may each be off by one, and a half for the sum


@dataclass(frozen=True, eq=False)
class Sources:
    """What each pixel of a mixed batch is made of, as its probe tells.

    Attributes:
        partner: (B,) int64, the number of the sample that was mixed in; its own where none was.
        weight: (B, 1, H, W), the partner's weight; float32, float64 for images of float64.
        is_average: (B,) bool, the weights of all sources sum to one and none is negative.
        is_pair: (B,) bool, one partner explains all pixels.
    """

    partner: Tensor
    weight: Tensor
    is_average: Tensor
    is_pair: Tensor


def append_probe(images: Tensor) -> Tensor:
    """Append the probe to images (B, C, H, W): (B, C + 2 + bits, H, W)."""
    batch, channels, height, width = images.shape
    bits = _bits(batch, images.device)
    one = 1 if images.is_floating_point() else BYTE
    whole = images.new_empty((batch, channels + NUMBER + bits.shape[1], height, width))
    whole[:, :channels] = images
    probe = whole[:, channels:]
    generator = torch.Generator(images.device).manual_seed(WITNESS_SEED)
    witness = torch.rand(
        (batch, height, width), generator=generator, device=images.device, dtype=torch.float32
    )
    probe[:, WITNESS] = witness * one
    probe[:, TOTAL] = one
    probe[:, NUMBER:] = (bits.to(images.dtype) * one)[..., None, None]
    return whole


def read_sources(probe: Tensor) -> Sources:
    """Read the sources of every pixel from a probe after mixing."""
    bits = _bits(len(probe), probe.device)
    rounding = rounding_of(probe.dtype)
    shares = probe[:, TOTAL:]
    if not probe.is_floating_point():
        shares = shares / BYTE
    # Comparisons with NaN are false, so each test is written to pass good values only.
    is_average = _largest((shares[:, :1] - 1).abs_()) <= rounding
    is_average &= shares.amin(dim=(1, 2, 3)) >= -rounding

    change = (shares[:, 1:] - bits[..., None, None].to(shares.dtype)).abs_()
    most = change.amax(dim=(2, 3))  # (B, bits): the partner's weight or nothing
    highest, bit = most.max(dim=1, keepdim=True)
    differs = (most > highest / 2) & (highest > rounding)
    weight = change.gather(1, bit[..., None, None].expand(-1, -1, *change.shape[2:]))
    weight *= differs.any(dim=1)[:, None, None, None]
    change.addcmul_(weight, differs[..., None, None].to(weight.dtype), value=-1).abs_()

    partner = ((bits ^ differs) * 2 ** torch.arange(bits.shape[1], device=bits.device)).sum(dim=1)
    is_pair = (_largest(change) <= rounding) & (partner < len(bits))
    return Sources(partner, weight.clamp_(max=1), is_average, is_pair)


def is_their_blend(mixed: Tensor, images: Tensor, sources: Sources) -> Tensor:
    """Compare mixed images with the blend of their sources, in every channel and pixel: (B,) bool.

    Args:
        mixed: (B, C, H, W), after mixing.
        images: (B, C, H, W), before.
        sources: as read from the probe.
    """
    own = images.to(sources.weight.dtype)
    theirs = own[sources.partner.clamp(max=len(own) - 1)]
    off = torch.lerp(own, theirs, sources.weight).sub_(mixed).abs_().amax(dim=(2, 3))
    if not mixed.is_floating_point():
        return (off <= BYTE_BLEND_ROUNDING).all(dim=1)
    # A weight that is too small to be read may belong to any image of the batch.
    allowed = 2 * rounding_of(mixed.dtype) * own.abs().amax(dim=(0, 2, 3))
    return (off <= allowed).all(dim=1)


def rounding_of(dtype: torch.dtype) -> float:
    """Return how far a weight may be off that is read from images of this dtype."""
    return ROUNDING if dtype.is_floating_point else BYTE_ROUNDING


def _largest(values: Tensor) -> Tensor:
    """Return the largest value of each sample, (B,): NaN where there is one."""
    return values.amax(dim=(1, 2, 3))


def _bits(batch: int, device: torch.device) -> Tensor:
    """Return the binary digits of every sample's number, lowest first: (B, bits) bool."""
    count = max(1, (batch - 1).bit_length())
    place = torch.arange(count, device=device)
    return ((torch.arange(batch, device=device)[:, None] >> place) & 1).bool()
