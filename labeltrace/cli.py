"""The command line: ``labeltrace explain MODEL`` and ``labeltrace demo``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub.utils import disable_progress_bars
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from labeltrace.aligned import trace
from labeltrace.demo import IMAGE_SIZE, run_demo
from labeltrace.errors import LabelTraceError
from labeltrace.explaining import node_table
from labeltrace.layout import shape_text
from labeltrace.model_loading import load_model
from labeltrace.photographs import read_photograph, sample_photographs
from labeltrace.tracing import Trace
