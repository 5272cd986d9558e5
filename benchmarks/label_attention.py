"""What the labels of one fused attention cost: the operator `labeltrace::attend` by itself.

    python benchmarks/label_attention.py
    python benchmarks/label_attention.py --clock cpu --threads 1
    python benchmarks/label_attention.py --device cuda --batch 256 --dtype bfloat16 --steps 20

Three jobs on the same queries, keys and labels take turns in one run, in another order each turn:

- operator: `labeltrace::attend`
- written out: scores and softmax alone, whole in memory, without any label: what the operator is
  measured against
- dense: scores, softmax, mean over heads and product with the labels, whole in memory: what
  labeltrace did before it had the operator

Scores are computed in float32 in all of them. Ratios are medians over the turns of each turn's own
ratio; memory is what a job has allocated at most, its result included and its inputs not.
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
from machine import machine
from peak_memory import peak_memory
from rich.console import Console
from rich.table import Table
from torch import Tensor
from turns import CLOCKS, by_job, ratio, take_turns

import labeltrace.fused_attention as fused_attention

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Shape:
    """One attention of a model: how many of them an image has (windows), and the mask it takes."""

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
    """Seconds of each job, a number a turn, and the MiB that it needs at most."""

    shape: str
    seconds: dict[str, tuple[float, ...]]
    memory: dict[str, float]

    def ratio(self, other: str) -> float:
        """The operator's time over another job's."""
        return ratio(self.seconds["operator"], self.seconds[other]).median


def jobs_of(shape: Shape, options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """The jobs for one shape, on inputs with the strides that models have."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    torch.manual_seed(0)
    batch = options.batch * shape.windows
    qkv = torch.randn(batch, shape.tokens, 3, shape.heads, shape.head_size, device=device)
    query, key, _ = qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind()
    labels = torch.rand(batch, shape.tokens, options.sources, device=device).softmax(-1)
    scale = 1 / math.sqrt(shape.head_size)
    mask: Tensor | None = None
    if shape.biased:
        ahead = batch if shape.shifted else 1
        mask = torch.randn(ahead, shape.heads, shape.tokens, shape.tokens, device=device).to(dtype)

    def written_out() -> Tensor:
        scores = (query.float() * scale) @ key.float().mT
        return (scores if mask is None else scores + mask.float()).softmax(-1)

    def dense() -> Tensor:
        maps = written_out()
        lost = maps[..., :1].isnan()
        averaged = (maps.nansum(1) + lost.sum(1) / shape.tokens) / shape.heads
        return averaged @ labels

    def operator() -> Tensor:
        return fused_attention.attend(query, key, labels, mask, False, scale)

    torch.testing.assert_close(operator(), dense(), atol=1e-5, rtol=0)
    return {"operator": operator, "written out": written_out, "dense": dense}


def measure(shape: Shape, options: argparse.Namespace) -> Result:
    jobs = jobs_of(shape, options)
    memory = {name: peak_memory(job, options.device) for name, job in jobs.items()}
    how = (options.device, options.clock, options.steps)
    turns = [take_turns(jobs, turn, *how) for turn in range(options.warmup + options.repeats)]
    return Result(shape.name, by_job(turns[options.warmup :]), memory)


def table(results: Sequence[Result], title: str) -> Table:
    found = Table(title=title)
    found.add_column("attention")
    for heading in ("operator, ms", "written out, ms", "dense, ms"):
        found.add_column(heading, justify="right")
    for heading in ("over written out", "over dense"):
        found.add_column(heading, justify="right")
    for heading in ("operator, MiB", "written out, MiB", "dense, MiB"):
        found.add_column(heading, justify="right")
    for result in results:
        times = [f"{1e3 * statistics.median(taken):.2f}" for taken in result.seconds.values()]
        ratios = [f"{result.ratio(other):.2f}" for other in ("written out", "dense")]
        found.add_row(result.shape, *times, *ratios, *(f"{m:.1f}" for m in result.memory.values()))
    return found


def main() -> None:
    options = options_given()
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


def options_given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--sources", type=int, default=2, help="columns of the labels, K")
    parser.add_argument("--repeats", type=int, default=15, help="turns that are counted")
    parser.add_argument("--warmup", type=int, default=3, help="turns before those")
    parser.add_argument("--steps", type=int, default=1, help="calls timed together in one turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), default="float32", help="of queries, keys"
    )
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="of the processor; torch's choice without it")
    parser.add_argument("--json", type=Path, help="a file for every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
