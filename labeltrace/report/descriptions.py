"""Descriptions of operations and steps, in sentences."""

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
    Reindex,
    Repeat,
    Resample,
    Roll,
    SampleBoxes,
    Select,
    Slice,
    Take,
    Unfold,
    Write,
)
from labeltrace.layout import Size, SlidingWindow

OPERATIONS: Mapping[Operation, str] = {
    Operation.SPATIAL_MIXING: (
        "Tokens exchange content: each new token is a weighted mean of the tokens that it reads, "
        "and its label is the same mean of their labels."
    ),
    Operation.CHANNEL_MIXING: (
        "The features of each token are recombined. No content moves between tokens, so labels do "
        "not change."
    ),
    Operation.POINTWISE: "Each number is changed separately. Labels do not change.",
    Operation.RESIDUAL: (
        "Streams are added token by token: the new label is the mean of the streams' labels."
    ),
    Operation.SPATIAL_AGGREGATION: (
        "Several tokens become one: there are fewer tokens, each with the mean label of its parts."
    ),
    Operation.RELAYOUT: (
        "Tokens are reordered, cut, padded or joined. Nothing is mixed; each token keeps its label."
    ),
    Operation.WEIGHTS: (
        "A step of computing mixing weights, such as attention scores. They say how tokens will be "
        "mixed; they carry no content and no label."
    ),
    Operation.PARTIAL_SUM: "One part of a longer sum, which counts as a single residual step.",
}

SAME = "The streams have equal labels, and their sum has the same."
INPUT = "The mixed image is the input. The label of each pixel says which photograph it is from."


def describe_step(step: LabelStep) -> str:
    """A sentence about what a step does to labels, with its numbers.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
    match step:
        case Attend() | Mix():
            return (
                "A mixing matrix, such as attention, says how much each token reads of the others."
            )
        case LinearMix():
            return "Linear attention: the mixing matrix is a product that is never materialized."
        case Convolve(channels_per_sample=own):
            strides = _strides(step.windows)
            own_kernels = ", with a separate kernel for each image" if own else ""
            return f"A convolution slides a kernel over the map with stride {strides}{own_kernels}."
        case ConvolveTransposed():
            return f"A transposed convolution spreads each token, stride {_strides(step.windows)}."
        case Resample():
            return f"The map is resampled to {_join_sizes(step.sizes)} ({step.mode})."
        case Pool():
            return (
                f"Windows of {_kernels(step.windows)} are pooled, stride {_strides(step.windows)}."
            )
        case AdaptivePool():
            return f"The map is pooled to {_join_sizes(step.output_size)}."
        case Aggregate():
            return "Several positions become one token."
        case Average():
            shares = " : ".join(map(str, step.shares))
            return f"The labels of {len(step.shares)} streams are averaged, with shares {shares}."
        case Roll():
            return (
                f"The map is rolled by {_join_numbers(step.shifts)}: what leaves at one border "
                "returns at the opposite one."
            )
        case Flip():
            return "The order of the tokens is reversed."
        case Slice():
            return "Some of the tokens are kept, the others are dropped."
        case Select():
            return f"Only token {step.index} is kept."
        case Take():
            return "Tokens are chosen by an index."
        case Reindex(ordered=None):
            return "Tokens are chosen by an index that is computed in each pass."
        case Reindex():
            return "Tokens are chosen by the order of their values."
        case Write(adds=adds) if any(adds):
            return "Tokens are added to others, at places that are known in each pass."
        case Write():
            return "A part of the tokens is written over."
        case SampleBoxes():
            return f"Boxes are cut out of the map, each in {_join_sizes(step.size)} bins."
        case Repeat():
            return "Tokens are repeated."
        case Pad():
            return "New positions are added at the borders."
        case Unfold():
            return f"The map is cut into windows of {_kernels(step.windows)}."
        case Fold():
            return f"Windows are put back onto a map of {_join_sizes(step.sizes)}."
        case Join():
            new = sum(piece is None for piece in step.pieces)
            added = f" {new} of them are new and carry the image's mean label." if new else ""
            return f"{len(step.pieces)} pieces are concatenated.{added}"
        case Recur() | FinalStates():
            return "A recurrent layer: each position reads the positions before it."
        case Custom():
            return "A step defined by the user."
        case Rearrange():
            return "The order of the tokens is changed."
    raise TypeError(
        f"{type(step).__name__} has no description; add a case to "
        "labeltrace.report.descriptions.describe_step"
    )


def _join_sizes(sizes: tuple[Size, ...]) -> str:
    return " × ".join(map(str, sizes))


def _kernels(windows: Iterable[SlidingWindow]) -> str:
    return _join_sizes(tuple(window.kernel for window in windows))


def _strides(windows: Iterable[SlidingWindow]) -> str:
    return _join_sizes(tuple(window.stride for window in windows))


def _join_numbers(numbers: tuple[Size, ...]) -> str:
    return ", ".join(map(str, numbers)).replace("-", "−")
