"""The error that training stops with."""

from __future__ import annotations

from labeltrace.errors import LabelTraceError


class TrainingError(LabelTraceError):
    """Training cannot start or go on; the last good checkpoint is as it was."""
