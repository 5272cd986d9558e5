"""Rewrites: the label steps of a trace made lean, each a pure function from steps to steps."""

from labeltrace.rewrites.cuts import Rows
from labeltrace.rewrites.lean import lean
from labeltrace.rewrites.steps import needed_fields

__all__ = ["Rows", "lean", "needed_fields"]
