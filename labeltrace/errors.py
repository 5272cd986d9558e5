"""The errors that labeltrace raises on purpose, all under one base class."""


class LabelTraceError(Exception):
    """Base of every error that labeltrace raises; catch it to catch them all."""


class CaptureError(LabelTraceError):
    """A model cannot be captured as a graph: `torch.export` stopped, or its inputs do not fit."""


class UnknownOperatorError(LabelTraceError):
    """A captured graph holds operators on the label's way that no rule serves."""


class LayoutError(LabelTraceError):
    """The positions or channels of an activation cannot be followed through an operator."""


class LabelError(LabelTraceError, ValueError):
    """A label image, class indices or targets, or the settings that make them, cannot be used."""
