"""A model as one interactive page: its label flow, its label maps, and the provenance of tokens."""

from labeltrace.extras import extra

with extra("report"):
    from labeltrace.report.build import build_report
    from labeltrace.report.output_file import atomic_text_file
    from labeltrace.report.page import render_page
    from labeltrace.report.schema import Report

__all__ = ["Report", "atomic_text_file", "build_report", "render_page"]
