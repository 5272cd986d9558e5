"""The architectures that labeltrace is tested on, as data.

`families()` lists them, `build(name)` makes a model of theirs; `labeltrace zoo sweep` checks
them all, and what it measures on the smallest of each family is kept here in `measured.json`.
"""

from labeltrace.extras import extra

with extra("zoo"):
    from labeltrace.models_zoo.building import build, load
    from labeltrace.models_zoo.family import Family, ImageSizes, Paper, families, find

__all__ = ["Family", "ImageSizes", "Paper", "build", "families", "find", "load"]
