"""The time of `labeltrace.align`, compared with `torch.export.export` alone.

    python benchmarks/trace_time.py
    python benchmarks/trace_time.py --models swin_tiny_patch4_window7_224 --depths --repeats 3

`align` captures a model, traces the graph and generates the label graph; the capture is one call of
`torch.export.export`. Both are timed on the same model, in turns; the ratio is the median over the
turns. What labeltrace itself adds (trace and generate, on a finished capture) is timed as well. The
depths of one vision transformer show how it grows with the number of nodes.

Seconds are processor seconds (`--clock cpu`): all of this runs in one thread, and other processes
do not count. On an idle machine `--clock wall` gives the same.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from interleaved_timing import CLOCKS
from machine import machine
from rich.console import Console
from rich.table import Table
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.export import Dim

import labeltrace
from labeltrace.capture.capture import capture_model
from labeltrace.codegen.generate import generate
from labeltrace.rule_api.registry import current
from labeltrace.tracing.trace_graph import trace_graph

MODELS = (
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_b16_224",
    "convnext_tiny",
    "resnet50",
)
DEPTHS = (6, 12, 24, 48)
BATCH = 2  # the smallest batch that torch.export accepts as dynamic
GOAL = 1.3


@dataclass(frozen=True)
class Result:
    """Seconds for one model: one number for each turn, and their medians.

    `ratio` is the median over the turns of the ratio of align to export.
    """

    model: str
    nodes: int
    export_seconds: tuple[float, ...]
    align_seconds: tuple[float, ...]
    own_seconds: tuple[float, ...]
    fixed_batch_reason: str

    @property
    def ratios(self) -> list[float]:
        return [a / e for a, e in zip(self.align_seconds, self.export_seconds, strict=True)]

    @property
    def summary(self) -> dict[str, float]:
        own = statistics.median(self.own_seconds)
        return {
            "export": statistics.median(self.export_seconds),
            "align": statistics.median(self.align_seconds),
            "ratio": statistics.median(self.ratios),
            "smallest_ratio": min(self.ratios),
            "largest_ratio": max(self.ratios),
            "own": own,
            "own_microseconds_per_node": 1e6 * own / self.nodes,
        }


def measure(
    name: str, model: nn.Module, image: Tensor, repeats: int, clock: Callable[[], float]
) -> Result:
    """Time one model; the first turn is not counted."""

    def export() -> object:
        shapes = ({0: Dim.DYNAMIC},)
        return torch.export.export(model, (image,), strict=False, dynamic_shapes=shapes)

    def align() -> object:
        return labeltrace.align(model, image)

    found = capture_model(model, (image,))

    def own() -> object:
        return generate(trace_graph(found, current()))

    jobs = (export, align, own)
    turns = [_time_round(jobs, turn, clock) for turn in range(repeats + 1)][1:]
    seconds = [tuple(turn[index] for turn in turns) for index in range(len(jobs))]
    nodes = len(trace_graph(found, current()).nodes)
    return Result(name, nodes, seconds[0], seconds[1], seconds[2], found.batch.fixed_reason)


def _time_round(
    jobs: Sequence[Callable[[], object]], turn: int, clock: Callable[[], float]
) -> list[float]:
    """Run every job once, each turn starting with another one; seconds in the jobs' order."""
    seconds = [0.0] * len(jobs)
    for index in range(len(jobs)):
        position = (index + turn) % len(jobs)
        gc.collect()  # so that garbage of another job is not freed during this one
        start = clock()
        jobs[position]()
        seconds[position] = clock() - start
    return seconds


def growth(results: Sequence[Result], of: Callable[[Result], float]) -> float:
    """The exponent p of `seconds ~ nodes ** p`, by least squares over logarithms."""
    nodes = [math.log(result.nodes) for result in results]
    times = [math.log(of(result)) for result in results]
    return statistics.linear_regression(nodes, times).slope


def table(results: Sequence[Result]) -> Table:
    found = Table(title=f"align against torch.export alone (goal: at most {GOAL})")
    for heading in (
        "model",
        "nodes",
        "export s",
        "align s",
        "ratio",
        "ratio, range",
        "labeltrace alone s",
        "µs per node",
    ):
        found.add_column(heading, justify="left" if heading == "model" else "right")
    for result in results:
        row = result.summary
        found.add_row(
            result.model,
            str(result.nodes),
            f"{row['export']:.2f}",
            f"{row['align']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['smallest_ratio']:.2f}–{row['largest_ratio']:.2f}",
            f"{row['own']:.3f}",
            f"{row['own_microseconds_per_node']:.0f}",
        )
    return found


def main() -> None:
    options = _options()
    console = Console(stderr=True)
    models: list[tuple[str, dict[str, int], str]] = [(name, {}, name) for name in options.models]
    models += [(options.depth_model, {"depth": d}, f"depth {d}") for d in options.depths]
    results: list[Result] = []
    for name, settings, title in models:
        console.print(f"{title} ...", style="dim")
        with torch.device(options.device):
            model = timm.create_model(name, **settings).train(not options.eval)
            image = torch.zeros(BATCH, *resolve_model_data_config(model)["input_size"])
        results.append(measure(title, model, image, options.repeats, CLOCKS[options.clock]))
    Console(width=None if sys.stdout.isatty() else 120).print(table(results))

    document = {
        "machine": machine(),
        "device": options.device,
        "clock": options.clock,
        "mode": "eval" if options.eval else "train",
        "repeats": options.repeats,
        "results": [asdict(result) | result.summary for result in results],
    }
    depths = results[len(options.models) :]
    if len(depths) > 1:
        document["growth"] = {
            "export": growth(depths, lambda result: result.summary["export"]),
            "align": growth(depths, lambda result: result.summary["align"]),
            "labeltrace alone": growth(depths, lambda result: result.summary["own"]),
        }
        exponents = ", ".join(f"{key} {value:.2f}" for key, value in document["growth"].items())
        print(f"Seconds grow as nodes ** p over the depths of {options.depth_model}: {exponents}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=MODELS, help="timm names")
    parser.add_argument(
        "--depths", nargs="*", type=int, default=DEPTHS, help="depths, to measure growth"
    )
    parser.add_argument("--depth-model", default="vit_tiny_patch16_224", help="a timm ViT")
    parser.add_argument("--repeats", type=int, default=5, help="number of measured turns")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="cpu")
    parser.add_argument(
        "--device", default="meta", help="meta has no weights and takes the same time"
    )
    parser.add_argument("--eval", action="store_true", help="eval mode; default: train mode")
    parser.add_argument("--json", type=Path, help="a file for every number")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    return options


if __name__ == "__main__":
    main()
