"""The cost of labels computed jointly with attention, and separately from it.

    python benchmarks/joint_attention.py
    python benchmarks/joint_attention.py --threads 1 --batch 1 8

Three jobs with the same queries, keys, values and labels run in turns, in a different order in each
turn, all recording for the backward pass:

- plain: scaled dot-product attention without labels
- joint: the same output, and labels, from one call of PyTorch's kernel
- separate: the plain call, and labels by the operator `labeltrace::attend`

Ratios are medians over the turns of each turn's ratio to `plain`. All jobs run on a processor in
float32: otherwise labels are always computed separately. A dash means that they must be computed
separately here as well, because the joint output would not be the same bit for bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from freed_memory import keep_freed_memory
from interleaved_timing import ratio, seconds_by_job, time_round
from machine import machine
from rich.console import Console
from rich.table import Table

import labeltrace.fused_attention as fused_attention


@dataclass(frozen=True)
class Shape:
    """The attention of one layer."""

    name: str
    heads: int
    tokens: int
    head_size: int = 64


SHAPES = (
    Shape("DeiT-S", 6, 197),
    Shape("DeiT-S, 384 px", 6, 577),
    Shape("DeiT-S, 512 px", 6, 1025),
    Shape("DeiT-B", 12, 197),
)


@dataclass(frozen=True)
class Result:
    """Seconds of each job, one for each turn; no `joint` if labels are computed separately."""

    shape: str
    batch: int
    seconds: dict[str, tuple[float, ...]]


def make_jobs(shape: Shape, batch: int) -> dict[str, Callable[[], object]]:
    """The jobs for one shape, with inputs of the same strides as in models."""
    torch.manual_seed(0)
    size = (batch, shape.tokens, 3, shape.heads, shape.head_size)
    query, key, value = torch.randn(size).requires_grad_().permute(2, 0, 3, 1, 4).unbind()
    labels = torch.rand(batch, shape.tokens, 2).softmax(-1)

    def plain() -> object:
        return F.scaled_dot_product_attention(query, key, value)

    def joint() -> object:
        assert fused_attention.can_compute_jointly(query, key, value)
        return fused_attention.attention_with_labels(query, key, value, labels, None)

    def separate() -> object:
        with torch.no_grad():
            mixed = fused_attention.attend(query, key, labels, None, False, shape.head_size**-0.5)
        return plain(), mixed

    found, expected = joint(), separate()
    if found is None:
        return {"plain": plain, "separate": separate}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    return {"plain": plain, "joint": joint, "separate": separate}


def measure(shape: Shape, batch: int, options: argparse.Namespace) -> Result:
    jobs = make_jobs(shape, batch)
    turns = [
        time_round(jobs, turn, "cpu", "wall", 1) for turn in range(options.warmup + options.repeats)
    ]
    return Result(shape.name, batch, seconds_by_job(turns[options.warmup :]))


def table(results: Sequence[Result], title: str) -> Table:
    found = Table(title=title)
    for heading in ("attention", "batch", "plain, ms", "joint, ms", "separate, ms"):
        found.add_column(heading, justify="left" if heading == "attention" else "right")
    for heading in ("joint over plain", "separate over plain"):
        found.add_column(heading, justify="right")
    for result in results:
        found.add_row(result.shape, str(result.batch), *_numbers(result))
    return found


def _numbers(result: Result) -> Iterator[str]:
    for job in ("plain", "joint", "separate"):
        taken = result.seconds.get(job)
        yield f"{1e3 * statistics.median(taken):.2f}" if taken else "–"
    for job in ("joint", "separate"):
        taken = result.seconds.get(job)
        yield _ratio(taken, result.seconds["plain"]) if taken else "–"


def _ratio(own: Sequence[float], other: Sequence[float]) -> str:
    found = ratio(own, other)
    return f"{found.median:.3f} ± {found.standard_error:.3f}"


def main() -> None:
    options = _options()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    results = [measure(shape, batch, options) for batch in options.batch for shape in SHAPES]
    title = f"Labels (K = 2) of one attention on {torch.get_num_threads()} threads, float32"
    Console(width=None if sys.stdout.isatty() else 120).print(table(results, title))
    if options.json:
        document = {
            "machine": machine("cpu"),
            "threads": torch.get_num_threads(),
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="images")
    parser.add_argument("--repeats", type=int, default=80, help="number of measured turns")
    parser.add_argument("--warmup", type=int, default=5, help="number of turns before them")
    parser.add_argument("--threads", type=int, help="processor threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="a file for every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
