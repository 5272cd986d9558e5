"""Operations and steps in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labeltrace.flow import (
    AdaptivePool,
    Aggregate,
    Attend,
    Average,
    Convolve,
    ConvolveTransposed,
    Custom,
    FinalStates,
    Flip,
    Fold,
    Join,
    LabelStep,
    LinearMix,
    Mix,
    Operation,
    Pad,
    Pool,
    Rearrange,
    Recur,
    Repeat,
    Resample,
    Roll,
    Select,
    Slice,
    Take,
    Unfold,
)
from labeltrace.layout import SlidingWindow

OPERATIONS: Mapping[Operation, str] = {
    Operation.SPATIAL_MIXING: (
        "Tokens exchange content: each new token is a weighted mean of the tokens that it reads, "
        "and so is its label."
    ),
    Operation.CHANNEL_MIXING: (
        "Each token's own features are recombined. No content moves between tokens, so labels stay."
    ),
    Operation.POINTWISE: "Each number is changed by itself. Labels stay.",
    Operation.RESIDUAL: (
        "Streams are added token by token: the new label is the mean of the streams' labels."
    ),
    Operation.SPATIAL_AGGREGATION: (
        "Several tokens become one: fewer tokens go on, each with the mean label of its parts."
    ),
    Operation.RELAYOUT: (
        "Tokens are reordered, cut, padded or joined. Nothing is mixed; each takes its label along."
    ),
    Operation.WEIGHTS: (
        "Mixing weights in the making, such as attention scores. They say how tokens will be mixed "
        "and carry no content, hence no label."
    ),
    Operation.PARTIAL_SUM: "One part of a longer sum, which counts as a single residual step.",
}

SAME = "The streams have equal labels, and so has their sum."
INPUT = "The mixed image enters. Each pixel's label says from which photograph it is."


def step_in_words(step: LabelStep) -> str:
    """What a step does to labels, with its own numbers.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
    match step:
        case Attend() | Mix():
            return "A mixing matrix, such as attention, says how much each token reads of which."
        case LinearMix():
            return "Linear attention: the mixing matrix is a product that is never written out."
        case Convolve(channels_per_sample=own):
            strides = _strides(step.windows)
            own_kernels = ", with a kernel of each image's own" if own else ""
            return f"A convolution slides a kernel over the map with stride {strides}{own_kernels}."
        case ConvolveTransposed():
            return f"A transposed convolution spreads each token, stride {_strides(step.windows)}."
        case Resample():
            return f"The map is resampled to {_across(step.sizes)} ({step.mode})."
        case Pool():
            return (
                f"Windows of {_kernels(step.windows)} are pooled, stride {_strides(step.windows)}."
            )
        case AdaptivePool():
            return f"The map is pooled to {_across(step.output_size)}."
        case Aggregate():
            return "Several positions become one token."
        case Average():
            shares = " : ".join(map(str, step.shares))
            return f"The labels of {len(step.shares)} streams are averaged, with shares {shares}."
        case Roll():
            return (
                f"The map is rolled around by {_listed(step.shifts)}: what leaves at one border "
                "comes back at the opposite one."
            )
        case Flip():
            return "The order of the tokens is reversed."
        case Slice():
            return "A part of the tokens goes on, the rest is left behind."
        case Select():
            return f"Token {step.index} alone goes on."
        case Take():
            return "Tokens are chosen by a fixed index."
        case Repeat():
            return "Tokens are repeated."
        case Pad():
            return "New positions are added at the borders."
        case Unfold():
            return f"The map is cut into windows of {_kernels(step.windows)}."
        case Fold():
            return f"Windows are laid back onto a map of {_across(step.sizes)}."
        case Join():
            new = sum(piece is None for piece in step.pieces)
            added = f" {new} of them are new and carry the image's mean label." if new else ""
            return f"{len(step.pieces)} pieces are put one after the other.{added}"
        case Recur() | FinalStates():
            return "A recurrent layer: each position reads those that came before it."
        case Custom():
            return "A step of the user's own."
        case Rearrange():
            return "The tokens are put in another order."
    raise TypeError(
        f"{type(step).__name__} has no description; add a case to "
        "labeltrace.report.descriptions.step_in_words"
    )


def _across(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))


def _kernels(windows: Iterable[SlidingWindow]) -> str:
    return _across(tuple(window.kernel for window in windows))


def _strides(windows: Iterable[SlidingWindow]) -> str:
    return _across(tuple(window.stride for window in windows))


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)).replace("-", "−")
