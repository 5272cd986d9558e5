"""Mix images, with labels that say for every pixel which image it came from.

Labels are distributions over K = 2 *sources*: column 0 is the image itself, column 1 its partner.
Class targets are computed at the end, by `MixedBatch.soft_targets`.
"""

from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.blocks import BlockMix
from labeltrace.mixing.cutmix import CutMix
from labeltrace.mixing.mixer_wrapper import TrackedMixer, track_mixing
from labeltrace.mixing.mixup import MixUp
from labeltrace.mixing.patches import PatchMix
from labeltrace.mixing.random_choice import RandomChoice
from labeltrace.mixing.targets import MixedTargets

__all__ = [
    "BlockMix",
    "CutMix",
    "MixUp",
    "MixedBatch",
    "MixedTargets",
    "PatchMix",
    "RandomChoice",
    "TrackedMixer",
    "track_mixing",
]
