"""A model as one page to explore: its label flow, its label maps, and where tokens came from."""

from labeltrace.extras import extra

with extra("report"):
    from labeltrace.report.build import gather
    from labeltrace.report.output_file import writable
    from labeltrace.report.page import page
    from labeltrace.report.schema import Report

__all__ = ["Report", "gather", "page", "writable"]
