"""A model as one page to explore: its label flow, its label maps, and where tokens came from."""

from labeltrace.report.content import Report
from labeltrace.report.gathering import gather
from labeltrace.report.page import page
from labeltrace.report.writing import ReportError, writable

__all__ = ["Report", "ReportError", "gather", "page", "writable"]
