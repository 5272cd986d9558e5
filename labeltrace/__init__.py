"""labeltrace follows labels through any vision model.

``align(model)`` gives a module that carries a label for every token beside the forward pass;
``trace(model, example)`` says what the model does to tokens, node by node; ``labels_at`` and
``provenance`` look inside, and ``labeltrace.analysis`` measures what the paper measures.
"""

from labeltrace import analysis
from labeltrace import rules as _rules  # files the built-in rules
from labeltrace.aligned import AlignedModule, align, trace
from labeltrace.analysis import provenance
from labeltrace.errors import (
    CaptureError,
    LabelError,
    LabelTraceError,
    LayoutError,
    UnknownOperatorError,
)
from labeltrace.inspection.observer import Observer, labels_at
from labeltrace.inspection.places import places
from labeltrace.losses import soft_cross_entropy
from labeltrace.mixing import (
    BlockMix,
    CutMix,
    MixedBatch,
    MixedTargets,
    MixUp,
    PatchMix,
    RandomChoice,
    track_mixing,
)
from labeltrace.rule_api.registry import register_rule, using_rules
from labeltrace.rules.maxima import FOLLOW_MAXIMA
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "FOLLOW_MAXIMA",
    "Ablation",
    "AlignedModule",
    "BlockMix",
    "CaptureError",
    "CutMix",
    "LabelError",
    "LabelTraceError",
    "LayoutError",
    "MixUp",
    "MixedBatch",
    "MixedTargets",
    "Observer",
    "PatchMix",
    "RandomChoice",
    "Trace",
    "UnknownOperatorError",
    "align",
    "analysis",
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
