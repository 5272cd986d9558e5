"""labeltrace follows labels through any vision model.

`align(model)` returns a module whose forward pass also computes a label for every token.
`trace(model, example)` tells what the model does to tokens, node by node. `labels_at` and
`provenance` look inside a model, and `labeltrace.analysis` has the measurements of the paper.
"""

from labeltrace import analysis
from labeltrace import rules as _rules  # registers the built-in rules
from labeltrace.aligned import AlignedModule, align, trace
from labeltrace.analysis import Provenance, provenance
from labeltrace.errors import (
    CaptureError,
    LabelError,
    LabelTraceError,
    LayoutError,
    UnknownOperatorError,
)
from labeltrace.flow import Operation
from labeltrace.inspection.observer import NodeLabels, Observer, labels_at
from labeltrace.inspection.places import Place, places
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.losses import soft_cross_entropy
from labeltrace.mixing import (
    BlockMix,
    CutMix,
    MixedBatch,
    MixedTargets,
    MixUp,
    PatchMix,
    RandomChoice,
    TrackedMixer,
    track_mixing,
)
from labeltrace.model_state.vouching import assume_unchanged
from labeltrace.rule_api.registry import register_rule, using_rules
from labeltrace.rules.follow_maxima import FOLLOW_MAXIMA
from labeltrace.runtime.engine_choice import Engine, EngineChoice, EngineWarning
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.version import __version__ as __version__

__all__ = [
    "FOLLOW_MAXIMA",
    "Ablation",
    "AlignedModule",
    "BlockMix",
    "CaptureError",
    "CutMix",
    "Engine",
    "EngineChoice",
    "EngineWarning",
    "LabelError",
    "LabelTraceError",
    "LayoutError",
    "MixUp",
    "MixedBatch",
    "MixedTargets",
    "NodeLabels",
    "Observer",
    "Operation",
    "PatchMix",
    "Place",
    "Provenance",
    "RandomChoice",
    "TokenGrid",
    "Trace",
    "TracedNode",
    "TrackedMixer",
    "UnknownOperatorError",
    "align",
    "analysis",
    "assume_unchanged",
    "labels_at",
    "places",
    "provenance",
    "register_rule",
    "soft_cross_entropy",
    "trace",
    "track_mixing",
    "using_rules",
]

del _rules


def __dir__() -> list[str]:
    """The public names, without the packages inside."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
