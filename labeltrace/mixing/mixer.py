"""The base of all mixing strategies: settings, pairing, and the mixing itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.checks import check_batch, check_mode
from labeltrace.mixing.pairing import Mode, Pairing, Partner, count_draws, draw_pairing
from labeltrace.mixing.sampling import draw_beta, draw_uniform, host_generator


@dataclass(frozen=True, kw_only=True)
class Mixer(ABC):
    """A way to mix images with partners from the same batch.

    Attributes:
        prob: probability that a draw mixes, in [0, 1]. Images that are not mixed are copied and are
            their own partners.
        mode: which images share a draw, with the names of timm's `Mixup`: `"batch"` all of them;
            `"pair"` the two of a pair, which exchange the same region; `"elem"` every image has its
            own draw.
        partner: how partners are found: `"permutation"` at random, where an image may be its own
            partner (random pairs in pair mode); `"flip"` the first with the last, as in timm;
            `"roll"` each with the one before it, as in torchvision (not in pair mode). In pair mode
            one image of an odd batch is its own partner.
    """

    blends: ClassVar[bool] = False  # whether images are averaged, which needs floating point

    prob: float = 1.0
    mode: Mode = "batch"
    partner: Partner = "permutation"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.prob <= 1:
            raise LabelError(f"{name}: prob must be a probability in [0, 1], got {self.prob}.")
        check_mode(name, self.mode, self.partner)

    def __call__(
        self, images: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> MixedBatch:
        """Mix a batch. The arguments are not modified.

        The check for negative targets costs one host synchronization on an accelerator; a generator
        on an accelerator costs another.

        Args:
            images: (B, C, H, W), floating point for `MixUp`; any dtype for the other mixers.
            targets: (B,) class indices, any integer dtype, on the device of the images.
            generator: source of every random draw; None for torch's default CPU generator.

        Returns:
            The batch, with classes (B, 2) and labels (B, 2, H, W) of zeros and ones; labels
            (B, 2, 1, 1) from `MixUp`.

        Raises:
            LabelError: images or targets have the wrong shape, dtype, batch size or device, or
                targets are negative.
        """
        return mix(type(self).__name__, self.choose, (self,), images, targets, generator)

    def choose(self, generator: torch.Generator | None) -> Mixer:
        """The strategy of one draw: always this one."""
        return self

    def check_size(self, height: int, width: int) -> None:  # noqa: B027 (most take any size)
        """Raise a `LabelError` for images of a size that this strategy cannot mix."""

    @abstractmethod
    def draw_own_share(self, generator: torch.Generator | None) -> float:
        """Draw the share that an image keeps, lambda of eq. 1."""

    @abstractmethod
    def draw_partner_weights(
        self, own_share: float, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the weight of the partner in every pixel, given the share that the image keeps.

        Returns:
            (H, W) bool on the CPU, true where the partner is pasted, or (1, 1) float64, its weight
            in a blend, the same for all pixels.
        """


@dataclass(frozen=True)
class BetaMixer(Mixer):
    """A mixer that draws lambda, the share that an image keeps, from Beta(alpha, alpha)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise LabelError(
                f"{type(self).__name__}: alpha must be finite and above 0, got {self.alpha}; "
                f"to switch mixing off, set prob=0."
            )
        super().__post_init__()

    def draw_own_share(self, generator: torch.Generator | None) -> float:
        """Draw lambda."""
        return draw_beta(self.alpha, generator)


def mix(
    name: str,
    choose: Callable[[torch.Generator | None], Mixer],
    mixers: Sequence[Mixer],
    images: Tensor,
    targets: Tensor,
    generator: torch.Generator | None,
) -> MixedBatch:
    """Mix a batch; each draw uses the mixer that `choose` returns.

    Args:
        name: name of the mixer in errors.
        choose: returns one of the mixers for each draw.
        mixers: all mixers that may be chosen; they have the same mode and partner.
        images: (B, C, H, W).
        targets: (B,) class indices.
        generator: source of every random draw; torch's default CPU generator where None.

    Raises:
        LabelError: the batch cannot be mixed by every one of the mixers.
    """
    check_batch(name, images, targets, blends=any(mixer.blends for mixer in mixers))
    batch, _, height, width = images.shape
    for mixer in mixers:
        mixer.check_size(height, width)

    generator = host_generator(generator)
    mode, partner = mixers[0].mode, mixers[0].partner
    chosen = [choose(generator) for _ in range(count_draws(mode, batch))]
    own_shares = [_draw_own_share(mixer, generator) for mixer in chosen]
    pairing = draw_pairing(mode, partner, batch, generator)
    shares = [
        mixer.draw_partner_weights(own_share, height, width, generator)
        for mixer, own_share in zip(chosen, own_shares, strict=True)
    ]
    pairing = _leave_unmixed(pairing, torch.tensor(own_shares, device="cpu") == 1)
    return _mix_pairs(images, targets, pairing, _stack(shares))


def _draw_own_share(mixer: Mixer, generator: torch.Generator | None) -> float:
    return mixer.draw_own_share(generator) if draw_uniform(generator) < mixer.prob else 1.0


def _leave_unmixed(pairing: Pairing, unmixed: Tensor) -> Pairing:
    """The pairing in which images of an unmixed draw are their own partners."""
    index = torch.arange(len(pairing.partner), device="cpu")
    return Pairing(torch.where(unmixed[pairing.draw], index, pairing.partner), pairing.draw)


def _stack(shares: Sequence[Tensor]) -> Tensor:
    """Stack the weights of all draws: (draws, H, W), or (draws, 1, 1) if all are constant."""
    dtypes = {share.dtype for share in shares}
    if len(dtypes) > 1:
        shares = [share.double() for share in shares]
    return torch.stack(torch.broadcast_tensors(*shares))


def _mix_pairs(images: Tensor, targets: Tensor, pairing: Pairing, shares: Tensor) -> MixedBatch:
    device = images.device
    partner, draw = pairing.partner.to(device), pairing.draw.to(device)
    pastes = shares.dtype == torch.bool
    # Rounded on the CPU: some accelerators have no float64.
    own_shares, shares = (~shares, shares) if pastes else ((1 - shares).float(), shares.float())
    own_share = own_shares.to(device)[draw].unsqueeze(1)  # (B, 1, H, W) or (B, 1, 1, 1)
    share = shares.to(device)[draw].unsqueeze(1)
    partners = images[partner]
    mixed = torch.where(share, partners, images) if pastes else _blend(images, partners, share)

    labels = torch.cat([own_share, share], dim=1).float()
    classes = torch.stack([targets.long(), targets.long()[partner]], dim=1)
    # Copied into a clone, which keeps the memory format for all sizes.
    return MixedBatch(images.clone().copy_(mixed), labels, classes)


def _blend(own: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Interpolate in float32 or wider: half precision would round the labels' weights."""
    dtype = torch.promote_types(own.dtype, torch.float32)
    return torch.lerp(own.to(dtype), partners.to(dtype), share.to(dtype))
