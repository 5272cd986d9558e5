"""Labels through fused attention without an attention map in memory.

There are two ways. *Separate*: the operator `labeltrace::attend` computes the scores a second time
and mixes labels by them, on any device. *Joint*: on a CPU, the model's own call computes its output
and the labels together, wherever the output stays bitwise equal.
"""

from labeltrace.fused_attention.joint_eager import attention_with_labels, can_compute_jointly
from labeltrace.fused_attention.joint_operator import compiled_attention_with_labels
from labeltrace.fused_attention.operator import attend

__all__ = [
    "attend",
    "attention_with_labels",
    "can_compute_jointly",
    "compiled_attention_with_labels",
]
