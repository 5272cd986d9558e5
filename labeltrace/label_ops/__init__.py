"""Label functions: what the label graph computes on tensors.

A label field is a float32 tensor (positions..., K). Its last dimension is a distribution over K
sources, which sums to one. Every function here returns such fields, draws no random numbers,
records no gradient and computes in float32, also under autocast.
"""

from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.label_ops.attention import attend, attention_with_labels
from labeltrace.label_ops.averaging import adaptive_pool, aggregate, average, fold, pool
from labeltrace.label_ops.boxes import sample_boxes
from labeltrace.label_ops.convolution import convolve, convolve_transposed, kernel
from labeltrace.label_ops.follow_maxima import follow_adaptive_pool, follow_extreme, follow_pool
from labeltrace.label_ops.index_steps import reindex, reindex_by_order
from labeltrace.label_ops.inputs_outputs import batch_size, read_image, write_output
from labeltrace.label_ops.positions import (
    cut,
    flip,
    join,
    pad,
    relayout,
    repeat,
    roll,
    select,
    take,
    unfold,
)
from labeltrace.label_ops.prior import prior_of
from labeltrace.label_ops.recurrence import final_states, recur
from labeltrace.label_ops.resampling import resample
from labeltrace.label_ops.spatial_mixing import mix, mix_linear
from labeltrace.label_ops.user_functions import checked_user_function
from labeltrace.label_ops.writes import add_at, overwrite

__all__ = [
    "adaptive_pool",
    "add_at",
    "aggregate",
    "attend",
    "attention_with_labels",
    "average",
    "batch_size",
    "checked_user_function",
    "convolve",
    "convolve_transposed",
    "cut",
    "final_states",
    "flip",
    "fold",
    "follow_adaptive_pool",
    "follow_extreme",
    "follow_pool",
    "join",
    "kernel",
    "label_arithmetic",
    "mix",
    "mix_linear",
    "overwrite",
    "pad",
    "pool",
    "prior_of",
    "read_image",
    "recur",
    "reindex",
    "reindex_by_order",
    "relayout",
    "repeat",
    "resample",
    "roll",
    "sample_boxes",
    "select",
    "take",
    "unfold",
    "write_output",
]
