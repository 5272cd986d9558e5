"""Training: timm's models, optimizers and schedules, with labels that follow the tokens.

`train(recipe, folder)` is the function behind `labeltrace train`. A `Recipe` holds all settings.
"""

from labeltrace.extras import extra

with extra("train"):
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
    "train",
    "with_changes",
]
