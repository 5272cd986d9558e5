"""Rewrites: passes that give the same labels for less work, pure functions from steps to steps."""

from labeltrace.rewrites.index_slice import Rows
from labeltrace.rewrites.pipeline import simplify_separate_steps, simplify_steps
from labeltrace.rewrites.steps import needed_fields

__all__ = ["Rows", "needed_fields", "simplify_separate_steps", "simplify_steps"]
