"""`track_mixing`: labels over sources for unmodified mixers of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.checks import check_batch
from labeltrace.mixing.mixer import Mixer
from labeltrace.mixing.pixel_dependence import PixelDependenceMode
from labeltrace.mixing.probe import (
    NOISE,
    DecodedSources,
    append_probe,
    decode_sources,
    is_blend_of_sources,
)
from labeltrace.mixing.random_choice import RandomChoice
from labeltrace.mixing.target_checks import contradicts_classes, contradicts_ratio

MixFunction = Callable[[Tensor, Tensor], Any]


def track_mixing(mixer: MixFunction) -> TrackedMixer:
    """Wrap any mixer so that it returns a `MixedBatch`.

    The mixer runs unmodified, with its own settings and random state: timm's `Mixup` in all modes,
    torchvision's `v2.CutMix` and `v2.MixUp`, `v2.RandomChoice` and `v2.RandomApply` of them, or
    your own function. The batch is passed to it with additional channels, from which the sources
    of every pixel are decoded after mixing.

    Args:
        mixer: a callable that takes images and class indices. It returns mixed images, or a tuple
            that starts with them. It may mix in place.

    Returns:
        A callable that takes images (B, C, H, W) and class indices (B,).

    Raises:
        LabelError: `mixer` does not mix batches, or is one of labeltrace's own mixers, which return
            labels already.

    Examples:
        >>> import torch
        >>> from labeltrace import track_mixing
        >>> def swap_upper_half(images, targets):
        ...     mixed = images.clone()
        ...     mixed[:, :, :4] = images.flip(0)[:, :, :4]
        ...     return mixed
        >>> mixer = track_mixing(swap_upper_half)
        >>> batch = mixer(torch.rand(2, 3, 8, 8), torch.tensor([5, 7]))
        >>> batch.mixing_ratio.tolist()
        [[0.5, 0.5], [0.5, 0.5]]
        >>> batch.classes.tolist()
        [[5, 7], [7, 5]]
    """
    return TrackedMixer(mixer)


@dataclass(frozen=True)
class TrackedMixer:
    """A mixer wrapped by `track_mixing`; call `track_mixing` to make one."""

    mixer: MixFunction

    def __post_init__(self) -> None:
        if not callable(self.mixer):
            raise LabelError(
                f"track_mixing: a mixer must be callable with images and targets, got "
                f"{self.mixer!r}; pass an object such as timm's Mixup(...), or a function."
            )
        if isinstance(self.mixer, Mixer | RandomChoice | TrackedMixer):
            raise LabelError(
                f"track_mixing: {self._name} returns its labels already; use it without wrapping."
            )
        _reject_collate_mixer(self.mixer)

    def __call__(self, images: Tensor, targets: Tensor) -> MixedBatch:
        """Mix a batch. The arguments are not modified; the mixer's random state advances.

        Costs 2 + ceil(log2(B)) additional channels, and two host synchronizations on an
        accelerator. Images in half precision are mixed in float32 and rounded once.

        Args:
            images: (B, C, H, W), floating point or uint8.
            targets: (B,) class indices, any integer dtype, on the device of the images.

        Returns:
            The batch: images as the mixer returns them without `track_mixing`; labels
            (B, 2, H, W), exact to 5e-7, or to 1 / 255 where bytes are blended; classes (B, 2). An
            image without a partner, or whose partner's weight is below that precision, is its own
            partner. The mixer's own targets are checked and dropped; `soft_targets` of
            `mixing_ratio` computes the same targets. They differ only if the mixer counts pasted
            pixels outside the image (timm's `correct_lam=False`): labels describe the pixels.

        Raises:
            LabelError: images or targets cannot be used; the result is not, in every channel and
                pixel, the blend of the image with one partner at weights that sum to one (more
                sources, other operations such as normalization, cropping or clipping, channels
                that are treated differently); the mixer reads pixels to decide what to mix; or its
                own targets contradict its images.
        """
        check_batch(f"track_mixing({self._name})", images, targets)
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise self._error(
                f"images must be floating point or uint8, got {images.dtype}; convert them first, "
                f"such as images.float()"
            )
        channels = images.shape[1]
        given = images.to(_mixing_dtype(images))
        extended = append_probe(given)
        noise = extended[:, [channels + NOISE]]
        mixed, own_targets = self._run(extended, targets)
        with torch.no_grad():
            mixed_images, mixed_probe = mixed[:, :channels], mixed[:, channels:]
            sources = decode_sources(mixed_probe)
            is_blend = is_blend_of_sources(mixed_images, given, sources)
            is_blend &= is_blend_of_sources(mixed_probe[:, [NOISE]], noise, sources)
            partner = sources.partner.clamp(max=len(images) - 1)
            classes = torch.stack([targets.long(), targets.long()[partner]], dim=1)
            labels = torch.cat([1 - sources.weight, sources.weight], dim=1).float()
            self._check(sources, is_blend, MixedBatch(images, labels, classes), own_targets)
        # Copied to free the probe and keep the memory format.
        return MixedBatch(torch.empty_like(images).copy_(mixed[:, :channels]), labels, classes)

    @property
    def _name(self) -> str:
        return getattr(self.mixer, "__name__", type(self.mixer).__name__)

    def _error(self, message: str) -> LabelError:
        return LabelError(f"track_mixing({self._name}): {message}")

    def _run(self, images: Tensor, targets: Tensor) -> tuple[Tensor, object]:
        """Run the mixer, which may overwrite the images; return its images and its targets."""
        pixel_dependence = PixelDependenceMode(images)
        shape, dtype, device = images.shape, images.dtype, images.device
        try:
            with pixel_dependence:
                result = self.mixer(images, targets.clone())
        except Exception as error:
            error.add_note(
                f"track_mixing called {self._name} with images of shape {tuple(shape)}: it "
                f"appends channels to them, and the mixer must take any number."
            )
            raise
        mixed, *others = result if isinstance(result, tuple | list) and result else (result,)
        if not isinstance(mixed, Tensor):
            raise self._error(
                f"the mixer must return images, or a tuple that starts with them, got "
                f"{type(mixed).__name__}; wrap it in a function that does"
            )
        if (mixed.shape, mixed.dtype, mixed.device) != (shape, dtype, device):
            raise self._error(
                f"images of shape {tuple(shape)}, {dtype} on {device} came back "
                f"as {tuple(mixed.shape)}, {mixed.dtype} on {mixed.device}; crop, resize and "
                f"convert in a separate step"
            )
        if pixel_dependence.deciding_operator:
            raise self._error(
                f"the mixer reads pixels to decide what to mix "
                f"({pixel_dependence.deciding_operator}); the channels that track_mixing appends "
                f"could change its decision. Use a mixer whose boxes or masks are drawn at random"
            )
        return mixed, others[0] if others else None

    def _check(
        self, sources: DecodedSources, is_blend: Tensor, batch: MixedBatch, targets: object
    ) -> None:
        faults = {
            "is no average of images: its weights do not sum to one, or some are negative; scale, "
            "normalize and erase in a separate step": ~sources.is_average,
            "has more than two sources, or more than one partner; labels cover an image and one "
            "partner, so mix two images at a time": ~sources.is_pair,
            "is not the blend of its two sources in every channel and pixel: pixels are moved, "
            "clipped, or mixed differently in some channels; crop, flip and change colors in a "
            "separate step": ~is_blend,
        }
        if _is_soft_targets(targets, len(is_blend)):
            faults |= {
                "was mixed from images of classes other than those in the mixer's own targets; mix "
                "images and targets in the same way": contradicts_classes(targets, batch.classes),
                "was blended at another ratio than the mixer's own targets say; mix images and "
                "targets in the same way": contradicts_ratio(targets, batch),
            }
        at_fault = torch.stack(list(faults.values())).tolist()
        for message, images in zip(faults, at_fault, strict=True):
            if any(images):
                raise self._error(f"image {images.index(True)} {message}.")


def _mixing_dtype(images: Tensor) -> torch.dtype:
    """The dtype to mix in: half precision would lose small weights."""
    is_float = images.is_floating_point()
    return torch.promote_types(images.dtype, torch.float32) if is_float else images.dtype


def _is_soft_targets(targets: object, batch: int) -> TypeGuard[Tensor]:
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        return False
    return targets.ndim == 2 and len(targets) == batch


def _reject_collate_mixer(mixer: MixFunction) -> None:
    from timm.data.mixup import FastCollateMixup  # imported here: only wrapping needs timm

    if isinstance(mixer, FastCollateMixup):
        raise LabelError(
            "track_mixing: FastCollateMixup mixes lists of samples while it collates them; use "
            "timm's Mixup on the batch, which has the same settings."
        )
