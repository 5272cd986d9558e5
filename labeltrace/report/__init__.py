"""A model as one interactive page: its label flow, its label maps, and the provenance of tokens."""

from labeltrace.report.build import build_report
from labeltrace.report.output_file import ReportError, atomic_text_file
from labeltrace.report.page import render_page
from labeltrace.report.schema import Report

__all__ = ["Report", "ReportError", "atomic_text_file", "build_report", "render_page"]
