"""Labels through fused attention, no map in memory: ``labeltrace::attend``, and a shorter way."""

from labeltrace.fused_attention.compiled import attend_beside
from labeltrace.fused_attention.operator import attend
from labeltrace.fused_attention.within import attend_within, may_attend_within

__all__ = ["attend", "attend_beside", "attend_within", "may_attend_within"]
