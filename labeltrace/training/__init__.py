"""Training: timm's models, optimizers and schedules, with labels that follow the tokens.

`train(recipe, folder)` is what `labeltrace train` runs; a `Recipe` is all that decides how it goes.
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
        changed,
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
    "changed",
    "train",
]
