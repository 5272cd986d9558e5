"""The cost of labels in a training step, compared with the plain step and the paper's method.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --models deit_small_patch16_224 --batch 1 2 4 8 --repeats 5
    python benchmarks/overhead.py --models deit_small_patch16_224 --resolution 224 384 512 --batch 2
    python benchmarks/overhead.py --modes eager compiled --memory --json overhead.json
    python benchmarks/overhead.py --device cuda --batch 256 --modes eager compiled \\
        --precisions float32 bfloat16 --steps 10

Three methods train the same model on the same batch mixed by CutMix: `plain` has targets from the
mixing ratio, `aligned` from aligned labels over two sources, and `paper` keeps a label over 1000
classes at every token, as the paper does, with materialized attention maps (see dense_labels.py).
The methods run in turns in one process, in a different order in each turn, so that load and
temperature of the machine affect all of them equally. Each turn gives a ratio to `plain`; the table
shows medians and quartiles of these ratios.

Labels add work only to the forward pass. It is timed separately as well (in train mode, recording
for backward), `--forwards` times for each step, because many short turns are more precise than few
long ones. `from forward` is the ratio of a step computed from it: (plain step + what labels add to
the forward pass) / plain step, with the standard error of the medians. The share of aligned labels
in what the paper's method adds is also that of a forward pass; it excludes what attention that is
not fused adds to the backward pass.

`floor` is the ratio from arithmetic only: (operations of the step + operations of the labels) /
operations of the step (see arithmetic.py).

With glibc, freed memory stays in the process (see freed_memory.py).

Peak memory is the peak of torch's allocations for the model, its capture (and compilation) and two
steps; on a processor only with `--memory`.

On a shared machine, `--clock cpu --threads 1` counts processor seconds. The capture, once for each
mode and input size, is not timed here: see trace_time.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arithmetic import Arithmetic, count_operations
from freed_memory import keep_freed_memory
from interleaved_timing import CLOCKS, Ratio, ratio, seconds_by_job, time_round
from machine import machine
from peak_memory import peak_memory
from rich.console import Console
from rich.table import Table
from training_step import METHODS, PRECISIONS, Case, TrainingStep

MODELS = (
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_b16_224",
    "convnext_tiny",
)

Seconds = dict[str, tuple[float, ...]]
"""Seconds of each method, one number for each turn."""


@dataclass(frozen=True)
class Result:
    """Seconds of steps and of forward passes, peak memory in MiB, and operations, by method."""

    case: Case
    step: Seconds
    forward: Seconds
    peak_memory: dict[str, float]
    arithmetic: dict[str, Arithmetic]

    def step_ratio(self, method: str) -> Ratio:
        """The ratio of a step to the plain step."""
        return ratio(self.step[method], self.step["plain"])

    def forward_ratio(self, method: str) -> Ratio:
        """The ratio of a forward pass to the plain forward pass."""
        return ratio(self.forward[method], self.forward["plain"])

    def step_from_forward(self, method: str) -> Ratio:
        """The ratio of a step to the plain step, computed from the forward pass."""
        share = statistics.median(self.forward["plain"]) / statistics.median(self.step["plain"])
        found = self.forward_ratio(method)
        return Ratio(
            1 + share * (found.median - 1),
            1 + share * (found.lower_quartile - 1),
            1 + share * (found.upper_quartile - 1),
            share * found.standard_error,
        )

    def floor(self, method: str) -> float:
        """The ratio of a step from arithmetic only."""
        counted = self.arithmetic[method]
        return 1 + counted.labels / counted.step

    def share_of_paper(self) -> tuple[float, float] | None:
        """What aligned labels add to a forward pass, divided by what the paper's method adds.

        Returns:
            The ratio and its standard error; None if the paper's method adds nothing.
        """
        if not {"aligned", "paper"} <= self.forward.keys():
            return None
        aligned, paper = self.forward_ratio("aligned"), self.forward_ratio("paper")
        added = paper.median - 1
        if added <= 0:
            return None
        share = (aligned.median - 1) / added
        return share, math.hypot(aligned.standard_error, share * paper.standard_error) / added

    def summary(self) -> dict[str, Any]:
        """All numbers as plain data."""
        found: dict[str, Any] = {"share_of_paper": self.share_of_paper()}
        for method in self.step:
            found[method] = {
                "step_seconds": statistics.median(self.step[method]),
                "forward_seconds": statistics.median(self.forward[method]),
                "step": asdict(self.step_ratio(method)),
                "forward": asdict(self.forward_ratio(method)),
                "step_from_forward": asdict(self.step_from_forward(method)),
            }
        for method in self.arithmetic:
            found[method]["floor"] = self.floor(method)
        return found


def measure(case: Case, options: argparse.Namespace) -> Result:
    """Time one case."""
    training = TrainingStep(case, options.methods)
    steps = {method: partial(training.step, method) for method in options.methods}
    forwards = {method: partial(training.forward, method) for method in options.methods}
    how = (options.device, options.clock, options.steps)
    for turn in range(options.warmup):
        time_round(steps, turn, *how)
        time_round(forwards, turn, *how)
    training.check_methods()
    step_turns: list[dict[str, float]] = []
    forward_turns: list[dict[str, float]] = []
    for turn in range(options.repeats):
        step_turns.append(time_round(steps, turn, *how))
        for again in range(turn * options.forwards, (turn + 1) * options.forwards):
            forward_turns.append(time_round(forwards, again, *how))
    del training, steps, forwards  # so that the peak is that of one method
    return Result(
        case,
        seconds_by_job(step_turns),
        seconds_by_job(forward_turns),
        _peak_memory(case, options),
        count_operations(case, options.methods),
    )


def _peak_memory(case: Case, options: argparse.Namespace) -> dict[str, float]:
    if case.device == "cpu" and not options.memory:  # profiling takes long
        return {}
    return {m: peak_memory(partial(train, case, m), case.device) for m in options.methods}


def train(case: Case, method: str) -> None:
    """Two steps; in the second, the optimizer's moments exist already."""
    training = TrainingStep(case, (method,))
    for _ in range(2):
        training.step(method)


def table(results: Sequence[Result], title: str) -> Table:
    """A table with one row for each case."""
    found = Table(title=title)
    headings = ("model", "batch", "pixels", "tokens", "mode", "precision", "plain\nstep ms")
    for heading in headings:
        found.add_column(heading, justify="left" if heading in ("model", "mode") else "right")
    methods = [method for method in METHODS[1:] if method in results[0].step]
    for method in methods:
        found.add_column(f"{method}:\nstep (quartiles)", justify="right")
        found.add_column("\nfrom forward", justify="right")
        found.add_column("\nforward", justify="right")
        found.add_column("\nfloor", justify="right")
    if len(methods) == 2:
        found.add_column("aligned's share\nof paper's cost", justify="right")
    if results[0].peak_memory:
        found.add_column("peak MiB\nplain", justify="right")
        for method in methods:
            found.add_column(f"ratio:\n{method}", justify="right")
    for result in results:
        found.add_row(*_row(result, methods))
    return found


def _row(result: Result, methods: Sequence[str]) -> Iterator[str]:
    case = result.case
    yield from (case.model, str(case.batch), str(case.resolution))
    yield str(result.arithmetic[methods[0]].tokens) if methods else ""
    yield from (case.mode, case.precision, f"{1e3 * statistics.median(result.step['plain']):.1f}")
    for method in methods:
        step = result.step_ratio(method)
        yield f"{step.median:.3f} ({step.lower_quartile:.3f}–{step.upper_quartile:.3f})"
        from_forward = result.step_from_forward(method)
        yield f"{from_forward.median:.4f} ± {from_forward.standard_error:.4f}"
        yield f"{result.forward_ratio(method).median:.3f}"
        yield f"{result.floor(method):.4f}"
    if len(methods) == 2:
        share = result.share_of_paper()
        yield "–" if share is None else f"{share[0]:.2f} ± {share[1]:.2f}"
    if result.peak_memory:
        plain = result.peak_memory["plain"]
        yield f"{plain:.0f}"
        yield from (f"{result.peak_memory[method] / plain:.3f}" for method in methods)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All combinations of the given settings."""
    settings = (options.resolution, options.batch, options.modes, options.precisions)
    for model in options.models:
        for resolution, batch, mode, precision in itertools.product(*settings):
            yield Case(model, batch, resolution, mode, precision, options.device)


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    kept = keep_freed_memory()
    progress = Console(stderr=True)
    results: list[Result] = []
    for case in cases(options):
        progress.print(f"{case} ...", style="dim")
        results.append(measure(case, options))
        torch.compiler.reset()
    title = "A training step with labels, relative to the plain step"
    Console(width=None if sys.stdout.isatty() else 220).print(table(results, title))
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        measured = [asdict(result) | {"summary": result.summary()} for result in results]
        found = machine(options.device) | {"freed_memory_kept": kept}
        document = {"machine": found, "options": settings, "results": measured}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="images in a step")
    parser.add_argument(
        "--resolution", nargs="+", type=int, default=[224], help="pixels on each side"
    )
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager"])
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=tuple(PRECISIONS),
        default=["float32"],
        help="precision of autocast",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory", action="store_true", help="also peak memory on a processor")
    parser.add_argument("--repeats", type=int, default=11, help="number of measured turns")
    parser.add_argument(
        "--forwards", type=int, default=1, help="turns of forward passes for each turn of steps"
    )
    parser.add_argument("--warmup", type=int, default=2, help="number of turns before them")
    parser.add_argument("--steps", type=int, default=1, help="steps timed together in one turn")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="processor threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="a file for every number")
    options = parser.parse_args()
    for name in ("repeats", "forwards", "warmup", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if "plain" not in options.methods:
        parser.error("--methods needs plain: the other methods are compared with it")
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu does not measure a GPU; use --clock wall")
    return options


if __name__ == "__main__":
    main()
