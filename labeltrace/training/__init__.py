"""Training: timm's models, optimizers and schedules, with labels that follow the tokens.

`train(recipe, folder)` is the function behind `labeltrace train`. A `Recipe` holds all settings.
"""

from labeltrace.training.failures import TrainingError
from labeltrace.training.presets import PRESETS
from labeltrace.training.recipe import (
    DataSettings,
    MixingSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    with_changes,
)
from labeltrace.training.run import Result, train

__all__ = [
    "PRESETS",
    "DataSettings",
    "MixingSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "Result",
    "ScheduleSettings",
    "TrainingError",
    "train",
    "with_changes",
]
