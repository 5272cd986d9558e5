"""The operator ``labeltrace::attend``: labels through fused attention, no map in memory."""

from labeltrace.fused_attention.operator import attend

__all__ = ["attend"]
