"""Labels through fused attention, no map in memory: ``labeltrace::attend``, and a shorter way."""

from labeltrace.fused_attention.joint_eager import attention_with_labels, can_compute_jointly
from labeltrace.fused_attention.joint_operator import compiled_attention_with_labels
from labeltrace.fused_attention.operator import attend

__all__ = [
    "attend",
    "attention_with_labels",
    "can_compute_jointly",
    "compiled_attention_with_labels",
]
