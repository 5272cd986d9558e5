"""`import labeltrace` is light: it loads little, and takes a fraction of what torch takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Processor time: what else the machine does does not count.
MEASURE = """
import json, sys, time
start = time.process_time()
import torch
middle = time.process_time()
before = set(sys.modules)
import labeltrace
end = time.process_time()
added = sorted(set(sys.modules) - before)
print(json.dumps({"torch": middle - start, "labeltrace": end - middle, "added": added}))
"""

# Parts of torch that are loaded where they are needed; the first takes longer than all of torch.
LATER = ("torch._dynamo", "torch._inductor", "torch.onnx", "torch.distributed")


def measure() -> dict[str, Any]:
    """Import torch, then labeltrace, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_no_other_package_is_loaded() -> None:
    """Neither what labeltrace depends on nor what torch loads on demand, such as sympy."""
    added = measure()["added"]
    packages = {name.partition(".")[0] for name in added} - sys.stdlib_module_names
    assert packages <= {"labeltrace", "torch"}
    assert not [name for name in added if name.startswith(LATER)]


def test_the_import_takes_less_than_half_of_torchs() -> None:
    found = [measure() for _ in range(3)]  # the first may have to compile the sources
    assert min(f["labeltrace"] for f in found) < 0.5 * min(f["torch"] for f in found)
