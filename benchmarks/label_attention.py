"""The cost of the labels of one fused attention: only the operator `labeltrace::attend`.

    python benchmarks/label_attention.py
    python benchmarks/label_attention.py --clock cpu --threads 1
    python benchmarks/label_attention.py --device cuda --batch 256 --dtype bfloat16 --steps 20

Three jobs with the same queries, keys and labels run in turns, in a different order in each turn:

- operator: `labeltrace::attend`
- scores: materialized scores and softmax, without labels: the reference for the operator
- dense: materialized scores, softmax, mean over heads and product with the labels: the
  implementation before the operator existed

All jobs compute scores in float32. Ratios are medians over the turns of each turn's ratio; memory
is the peak allocation of a job, with its result and without its inputs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from interleaved_timing import CLOCKS, ratio, seconds_by_job, time_round
from machine import machine
from peak_memory import peak_memory
from rich.console import Console
from rich.table import Table
from torch import Tensor

import labeltrace.fused_attention as fused_attention

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Shape:
    """One attention of a model: the number of windows in an image, and the mask."""

    name: str
    windows: int
    heads: int
    tokens: int
    head_size: int
    biased: bool = False
    shifted: bool = False


SHAPES = (
    Shape("DeiT-S", 1, 6, 197, 64),
    Shape("DeiT-S, 384 px", 1, 6, 577, 64),
    Shape("Swin-T, stage 1", 64, 3, 49, 32, biased=True),
    Shape("Swin-T, stage 1, shifted", 64, 3, 49, 32, biased=True, shifted=True),
    Shape("Swin-T, stage 3", 4, 12, 49, 32, biased=True),
)


@dataclass(frozen=True)
class Result:
    """Seconds of each job, one for each turn, and its peak memory in MiB."""

    shape: str
    seconds: dict[str, tuple[float, ...]]
    memory: dict[str, float]

    def ratio(self, other: str) -> float:
        """The operator's time divided by another job's."""
        return ratio(self.seconds["operator"], self.seconds[other]).median


def make_jobs(shape: Shape, options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """The jobs for one shape, with inputs of the same strides as in models."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    torch.manual_seed(0)
    batch = options.batch * shape.windows
    qkv = torch.randn(batch, shape.tokens, 3, shape.heads, shape.head_size, device=device)
    query, key, _ = qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind()
    labels = torch.rand(batch, shape.tokens, options.sources, device=device).softmax(-1)
    scale = 1 / math.sqrt(shape.head_size)
    mask: Tensor | None = None
    if shape.biased:
        mask_batch = batch if shape.shifted else 1
        mask = torch.randn(mask_batch, shape.heads, shape.tokens, shape.tokens, device=device).to(
            dtype
        )

    def softmax_scores() -> Tensor:
        scores = (query.float() * scale) @ key.float().mT
        return (scores if mask is None else scores + mask.float()).softmax(-1)

    def dense() -> Tensor:
        maps = softmax_scores()
        masked = maps[..., :1].isnan()
        averaged = (maps.nansum(1) + masked.sum(1) / shape.tokens) / shape.heads
        return averaged @ labels

    def operator() -> Tensor:
        return fused_attention.attend(query, key, labels, mask, False, scale)

    torch.testing.assert_close(operator(), dense(), atol=1e-5, rtol=0)
    return {"operator": operator, "scores": softmax_scores, "dense": dense}


def measure(shape: Shape, options: argparse.Namespace) -> Result:
    jobs = make_jobs(shape, options)
    memory = {name: peak_memory(job, options.device) for name, job in jobs.items()}
    how = (options.device, options.clock, options.steps)
    turns = [time_round(jobs, turn, *how) for turn in range(options.warmup + options.repeats)]
    return Result(shape.name, seconds_by_job(turns[options.warmup :]), memory)


def table(results: Sequence[Result], title: str) -> Table:
    found = Table(title=title)
    found.add_column("attention")
    for heading in ("operator, ms", "scores, ms", "dense, ms"):
        found.add_column(heading, justify="right")
    for heading in ("over scores", "over dense"):
        found.add_column(heading, justify="right")
    for heading in ("operator, MiB", "scores, MiB", "dense, MiB"):
        found.add_column(heading, justify="right")
    for result in results:
        times = [f"{1e3 * statistics.median(taken):.2f}" for taken in result.seconds.values()]
        ratios = [f"{result.ratio(other):.2f}" for other in ("scores", "dense")]
        found.add_row(result.shape, *times, *ratios, *(f"{m:.1f}" for m in result.memory.values()))
    return found


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    with torch.no_grad():
        results = [measure(shape, options) for shape in SHAPES]
    title = f"Labels (K = {options.sources}) of one attention, batch {options.batch}, "
    title += f"{options.dtype}, {options.device}, {options.clock} time"
    Console(width=None if sys.stdout.isatty() else 140).print(table(results, title))
    if options.json:
        given = {name: value for name, value in vars(options).items() if name != "json"}
        document = {
            "machine": machine(options.device),
            "options": given,
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--sources", type=int, default=2, help="columns of the labels, K")
    parser.add_argument("--repeats", type=int, default=15, help="number of measured turns")
    parser.add_argument("--warmup", type=int, default=3, help="number of turns before them")
    parser.add_argument("--steps", type=int, default=1, help="calls timed together in one turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), default="float32", help="dtype of queries and keys"
    )
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="processor threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="a file for every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
