"""The measurements of the paper, and two of our own, on any model that can be aligned.

Every function takes the plain model, looks at it in eval mode and puts its mode back.
"""

from labeltrace.analysis.input_fidelity import Fidelity, fidelity
from labeltrace.analysis.input_provenance import Provenance, provenance
from labeltrace.analysis.presence_ratios import Presence, presence
from labeltrace.analysis.ratio_curves import RatioCurves, ratio_curves
from labeltrace.analysis.similarity import similarity_ratio, similarity_ratios
from labeltrace.analysis.target_rmse import target_rmse

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
