"""Mixers of other libraries, unmodified, with labels over their sources."""

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
from labeltrace.mixing.pixel_dependence import PixelWatch
from labeltrace.mixing.probe import WITNESS, Sources, append_probe, is_their_blend, read_sources
from labeltrace.mixing.random_choice import RandomChoice
from labeltrace.mixing.target_checks import gives_other_classes, gives_other_ratio

Mixing = Callable[[Tensor, Tensor], Any]


def track_mixing(mixer: Mixing) -> TrackedMixer:
    """Wrap any mixer, so that it returns a `MixedBatch`.

    The mixer runs as it is, with its own settings and random state: timm's `Mixup` in all modes,
    torchvision's `v2.CutMix` and `v2.MixUp`, `v2.RandomChoice` and `v2.RandomApply` of them, or a
    function of yours. The batch that it gets has further channels, which reveal to the pixel which
    image went where.

    Args:
        mixer: called with images and class indices; returns mixed images, alone or first in a
            tuple with targets. It may mix in place.

    Raises:
        LabelError: not a mixer of batches, or one of this library's own, which has labels already.
    """
    return TrackedMixer(mixer)


@dataclass(frozen=True)
class TrackedMixer:
    """A mixer, and what `track_mixing` adds to it. Make it with `track_mixing`."""

    mixer: Mixing

    def __post_init__(self) -> None:
        if not callable(self.mixer):
            raise LabelError(
                f"track_mixing: a mixer must be callable with images and targets, got "
                f"{self.mixer!r}."
            )
        if isinstance(self.mixer, Mixer | RandomChoice | TrackedMixer):
            raise LabelError(
                f"track_mixing: {self._name} returns its labels already; call it as it is."
            )
        _refuse_collate(self.mixer)

    def __call__(self, images: Tensor, targets: Tensor) -> MixedBatch:
        """Mix a batch. The arguments are left as they are, the mixer's random state moves on.

        Costs 2 + ceil(log2(B)) more channels to mix, and two host synchronisations on an
        accelerator. Images in half precision are mixed in float32 and rounded once.

        Args:
            images: (B, C, H, W), floating point or uint8.
            targets: (B,) class indices, any integer dtype, on the device of the images.

        Returns:
            The batch: images as the mixer alone would have returned them, labels (B, 2, H, W) to
            5e-7, or 1 / 255 where bytes are blended, and classes (B, 2). An image that has no
            partner, or one of less weight, is its own. The mixer's own targets are checked and
            dropped: `soft_targets` of `mixing_ratio` gives them again. Only where a mixer counts
            pasted pixels that fell outside of the image (timm's `correct_lam=False`) do they
            differ: labels say what happened to the pixels.

        Raises:
            LabelError: images or targets that cannot be used; a mixer whose result is not, in every
                channel and pixel, the blend of the image with one partner at weights that sum to
                one: more sources, other operations (normalising, cropping, clipping), channels that
                are treated differently; that looks at pixels to decide what to mix; or whose own
                targets contradict its images.
        """
        check_batch(f"track_mixing({self._name})", images, targets)
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise self._error(f"images must be floating point or uint8, got {images.dtype}")
        channels = images.shape[1]
        given = images.to(_mixing_dtype(images))
        whole = append_probe(given)
        witness = whole[:, [channels + WITNESS]]
        mixed, own_targets = self._run(whole, targets)
        with torch.no_grad():
            mixed_images, mixed_probe = mixed[:, :channels], mixed[:, channels:]
            sources = read_sources(mixed_probe)
            is_blend = is_their_blend(mixed_images, given, sources)
            is_blend &= is_their_blend(mixed_probe[:, [WITNESS]], witness, sources)
            partner = sources.partner.clamp(max=len(images) - 1)
            classes = torch.stack([targets.long(), targets.long()[partner]], dim=1)
            labels = torch.cat([1 - sources.weight, sources.weight], dim=1).float()
            self._check(sources, is_blend, MixedBatch(images, labels, classes), own_targets)
        # Copied, to let go of the probe and keep the memory format.
        return MixedBatch(torch.empty_like(images).copy_(mixed[:, :channels]), labels, classes)

    @property
    def _name(self) -> str:
        return getattr(self.mixer, "__name__", type(self.mixer).__name__)

    def _error(self, message: str) -> LabelError:
        return LabelError(f"track_mixing({self._name}): {message}")

    def _run(self, images: Tensor, targets: Tensor) -> tuple[Tensor, object]:
        """Run the mixer, which may overwrite the images; return its images and its targets."""
        watch = PixelWatch(images)
        shape, dtype, device = images.shape, images.dtype, images.device
        try:
            with watch:
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
                f"the mixer must return images, or a tuple that begins with them, got "
                f"{type(mixed).__name__}; wrap it in a function that does"
            )
        if (mixed.shape, mixed.dtype, mixed.device) != (shape, dtype, device):
            raise self._error(
                f"images of shape {tuple(shape)}, {dtype} on {device} came back "
                f"as {tuple(mixed.shape)}, {mixed.dtype} on {mixed.device}; crop, resize and "
                f"convert in a step of its own"
            )
        if watch.decided_by:
            raise self._error(
                f"the mixer looks at pixels to decide what to mix ({watch.decided_by}), and the "
                f"channels appended here could change what it decides; mix without it, with boxes "
                f"or masks drawn at random"
            )
        return mixed, others[0] if others else None

    def _check(
        self, sources: Sources, is_blend: Tensor, batch: MixedBatch, targets: object
    ) -> None:
        faults = {
            "is no average of images: its weights do not sum to one, or some are negative; scale, "
            "normalise and erase in a step of its own": ~sources.is_average,
            "has more than two sources, or more than one partner; labels are over an image and one "
            "partner": ~sources.is_pair,
            "is not the blend of its two sources in every channel and pixel: pixels are moved, "
            "clipped, or mixed otherwise in some channels; crop, flip and recolour in a step of "
            "its own": ~is_blend,
        }
        if _are_soft_targets(targets, len(is_blend)):
            faults |= {
                "was mixed from images of classes other than those in the mixer's own targets; it "
                "must mix images and targets alike": gives_other_classes(targets, batch.classes),
                "was blended at another ratio than the mixer's own targets say; it must mix images "
                "and targets alike": gives_other_ratio(targets, batch),
            }
        at_fault = torch.stack(list(faults.values())).tolist()
        for message, images in zip(faults, at_fault, strict=True):
            if any(images):
                raise self._error(f"image {images.index(True)} {message}.")


def _mixing_dtype(images: Tensor) -> torch.dtype:
    """Return the dtype to mix in: half precision would drown small weights."""
    is_float = images.is_floating_point()
    return torch.promote_types(images.dtype, torch.float32) if is_float else images.dtype


def _are_soft_targets(targets: object, batch: int) -> TypeGuard[Tensor]:
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        return False
    return targets.ndim == 2 and len(targets) == batch


def _refuse_collate(mixer: Mixing) -> None:
    from timm.data.mixup import FastCollateMixup  # here: those who do not wrap need no timm

    if isinstance(mixer, FastCollateMixup):
        raise LabelError(
            "track_mixing: FastCollateMixup mixes lists of samples while it collates them; use "
            "timm's Mixup on the batch, which takes the same settings."
        )
