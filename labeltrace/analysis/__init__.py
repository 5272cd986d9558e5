"""The measurements of the paper, and two new ones, for any model that can be aligned.

Every function takes the plain model, runs it in eval mode and restores its mode.
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
