"""Labels through fused attention, no map in memory: ``labeltrace::attend``, and a shorter way."""

from labeltrace.fused_attention.joint_eager import attend_within, may_attend_within
from labeltrace.fused_attention.joint_operator import attend_beside
from labeltrace.fused_attention.operator import attend

__all__ = ["attend", "attend_beside", "attend_within", "may_attend_within"]
