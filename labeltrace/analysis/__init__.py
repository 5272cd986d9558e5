"""The measurements of the paper, and two of our own, on any model that can be aligned.

Every function takes the plain model, looks at it in eval mode and puts its mode back.
"""

from labeltrace.analysis.curves import RatioCurves, ratio_curves
from labeltrace.analysis.input_cells import Provenance, provenance
from labeltrace.analysis.ranking import Fidelity, fidelity
from labeltrace.analysis.similarity import similarity_ratio, similarity_ratios
from labeltrace.analysis.target_change import target_rmse
from labeltrace.analysis.token_presence import Presence, presence

__all__ = [
    "Fidelity",
    "Presence",
    "Provenance",
    "RatioCurves",
    "fidelity",
    "presence",
    "provenance",
    "ratio_curves",
    "similarity_ratio",
    "similarity_ratios",
    "target_rmse",
]
