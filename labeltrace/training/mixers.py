"""The mixer that a recipe describes."""

from __future__ import annotations

from labeltrace.mixing import BlockMix, CutMix, MixUp, PatchMix, RandomChoice
from labeltrace.mixing.mixer import Mixer
from labeltrace.training.recipe import MixingSettings


def make_mixer(settings: MixingSettings) -> Mixer | RandomChoice | None:
    """The mixer; None if images are not mixed.

    Raises:
        LabelError: a setting is outside its range.
    """
    mode, partner, alpha = settings.mode, settings.partner, settings.alpha
    match settings.strategy:
        case "none":
            return None
        case "cutmix":
            return CutMix(alpha=alpha, mode=mode, partner=partner)
        case "mixup":
            return MixUp(alpha=alpha, mode=mode, partner=partner)
        case "patch":
            return PatchMix(alpha=alpha, patch=settings.patch, mode=mode, partner=partner)
        case "block":
            return BlockMix(alpha=alpha, patch=settings.patch, mode=mode, partner=partner)
        case "mix":
            cutmix = CutMix(alpha=alpha, mode=mode, partner=partner)
            mixup = MixUp(alpha=settings.mixup_alpha, mode=mode, partner=partner)
            return RandomChoice((cutmix, mixup), (settings.switch, 1 - settings.switch))
