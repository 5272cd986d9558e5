"""What labels add to a training step, beside the plain step and the paper's own method.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --models deit_small_patch16_224 --batch 1 2 4 8 --repeats 5
    python benchmarks/overhead.py --models deit_small_patch16_224 --resolution 224 384 512 --batch 2
    python benchmarks/overhead.py --modes eager compiled --memory --json overhead.json
    python benchmarks/overhead.py --device cuda --batch 256 --modes eager compiled \\
        --precisions float32 bfloat16 --steps 10

Three methods train the same model on the same CutMix-ed batch: `plain` makes its targets of the
mixing ratio, `aligned` of aligned labels over two sources, `paper` keeps a label over 1000 classes
at every token, as the paper does, with attention maps written out (see dense_labels.py).  They take
turns in one process, in another order each turn, so that what else the machine does and how warm
it is falls on all alike.  Ratios are medians over the turns of each turn's own ratio to `plain`,
with quartiles; forward passes (in train mode, recording for backward) are timed likewise.

`floor` is the ratio that arithmetic alone allows: the operations of the step and the labels over
those of the step (see arithmetic.py).

Peak memory is what a step needs at most: on a GPU all that is allocated; on a processor, with
`--memory`, the largest resident set of a process of its own that trains for three steps.

On a machine that others use as well, `--clock cpu --threads 1` counts the processor's seconds.
The capture, once for each mode and input size, is not timed here: see trace_time.py.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from arithmetic import Arithmetic, label_operations, step_operations
from dense_labels import DenseLabels
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import labeltrace

MODELS = (
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_b16_224",
    "convnext_tiny",
)
METHODS = ("plain", "aligned", "paper")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Case:
    """One setting of the benchmark; ``precision`` is that of autocast, float32 is none."""

    model: str
    batch: int
    resolution: int
    mode: str
    precision: str
    device: str


@dataclass(frozen=True)
class Result:
    """Seconds of each job, a number a turn; peak memory in MiB; operations by method."""

    case: Case
    step: dict[str, tuple[float, ...]]
    forward: dict[str, tuple[float, ...]]
    peak_memory: dict[str, float]
    arithmetic: dict[str, Arithmetic]

    def summary(self) -> dict[str, Any]:
        """Medians, ratios to plain with quartiles, floors, and aligned's part of paper's extra."""
        found: dict[str, Any] = {"step": _ratios(self.step), "forward": _ratios(self.forward)}
        for method, counted in self.arithmetic.items():
            found[f"floor_{method}"] = 1 + counted.labels / counted.step
        ratios = found["step"]
        if "paper" in ratios and ratios["paper"]["ratio"] > 1:
            extra = {method: ratios[method]["ratio"] - 1 for method in ("aligned", "paper")}
            found["part_of_paper"] = extra["aligned"] / extra["paper"]
        return found


class Bench:
    """One case: a model, its optimizer and one mixed batch; each method is a job."""

    def __init__(self, case: Case, methods: Sequence[str]) -> None:
        torch.manual_seed(0)
        self.case = case
        device = torch.device(case.device)
        with device:
            images = torch.rand(case.batch, 3, case.resolution, case.resolution)
            targets = torch.randint(NUM_CLASSES, (case.batch,))
        self.batch = labeltrace.CutMix()(images, targets)
        one_hot = nn.functional.one_hot(self.batch.classes, NUM_CLASSES)
        self.classes = one_hot.to(torch.float32)
        # The same parameters and moments in all methods: where these lie in memory tells in a step.
        self.model = build(case, case.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        forwards = {method: self._forward(method, self.model) for method in methods}
        compiled = case.mode == "compiled"
        self.forwards = {m: torch.compile(f) if compiled else f for m, f in forwards.items()}

    def _forward(self, method: str, model: nn.Module) -> Callable[..., Any]:
        if method == "plain":
            return model
        if method == "aligned":
            return labeltrace.align(model)
        with self._precision():
            return DenseLabels(sharing(model), self.batch.images)

    def forward(self, method: str) -> tuple[Tensor, Tensor]:
        """Logits and class targets (B, classes), not yet smoothed."""
        batch = self.batch
        with self._precision():
            if method == "plain":
                logits, labels = self.forwards[method](batch.images), batch.mixing_ratio
            elif method == "aligned":
                logits, labels = self.forwards[method](batch.images, batch.labels)
            else:
                return self.forwards[method](batch.images, batch.labels, self.classes)
        return logits, (labels[:, None] @ self.classes)[:, 0]

    def step(self, method: str) -> None:
        """Forward, backward and optimizer."""
        logits, targets = self.forward(method)
        targets = targets * 0.9 + 0.1 / NUM_CLASSES
        labeltrace.soft_cross_entropy(logits, targets).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        dtype = PRECISIONS[self.case.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.case.device, dtype=dtype)


def build(case: Case, device: str) -> nn.Module:
    """The case's model; its own size of images unless the case has another."""
    config = timm.get_pretrained_cfg(case.model)
    sized = config is not None and config.fixed_input_size
    own = config is None or config.input_size[-1] == case.resolution
    settings = {"img_size": case.resolution} if sized and not own else {}
    with torch.device(device):
        return timm.create_model(case.model, num_classes=NUM_CLASSES, **settings)


def sharing(model: nn.Module) -> nn.Module:
    """Another model on the same parameters and buffers, whose settings may be changed."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def measure(case: Case, options: argparse.Namespace) -> Result:
    """Time one case."""
    bench = Bench(case, options.methods)
    jobs = [(kind, m) for kind in (bench.step, bench.forward) for m in options.methods]
    for _ in range(options.warmup):
        for kind, method in jobs:
            kind(method)
    _check_methods(bench)
    turns = [_turn(jobs, turn, options) for turn in range(options.repeats)]
    by_job = list(zip(*turns, strict=True))
    count = len(options.methods)
    return Result(
        case,
        dict(zip(options.methods, by_job[:count], strict=True)),
        dict(zip(options.methods, by_job[count:], strict=True)),
        _peak_memory(bench, options),
        count_operations(case, options.methods),
    )


def _check_methods(bench: Bench) -> None:
    """The paper's method and ours give one target; they are two ways to compute it."""
    if {"aligned", "paper"} <= bench.forwards.keys():
        torch.manual_seed(0)
        _, aligned = bench.forward("aligned")
        torch.manual_seed(0)
        _, paper = bench.forward("paper")
        tolerance = 1e-4 if bench.case.precision == "float32" else 1e-2
        torch.testing.assert_close(aligned, paper, atol=tolerance, rtol=0)


def _turn(
    jobs: Sequence[tuple[Callable[[str], object], str]], turn: int, options: argparse.Namespace
) -> list[float]:
    """Time every job once, in another order each turn; seconds in the jobs' order.

    What a job leaves behind, memory above all, makes the next one quicker or slower.
    """
    clock = CLOCKS[options.clock]
    seconds = [0.0] * len(jobs)
    order = list(range(len(jobs)))
    random.Random(turn).shuffle(order)
    for place in order:
        kind, method = jobs[place]
        _synchronise(options.device)
        start = clock()
        for _ in range(options.steps):
            kind(method)
        _synchronise(options.device)
        seconds[place] = (clock() - start) / options.steps
    return seconds


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)


def _ratios(seconds: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for method, turns in seconds.items():
        ratios = [mine / plain for mine, plain in zip(turns, seconds["plain"], strict=True)]
        low, high = _quartiles(ratios)
        found[method] = {
            "seconds": statistics.median(turns),
            "ratio": statistics.median(ratios),
            "lower_quartile_of_ratio": low,
            "upper_quartile_of_ratio": high,
        }
    return found


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


# Memory.


def _peak_memory(bench: Bench, options: argparse.Namespace) -> dict[str, float]:
    if bench.case.device != "cpu":
        return {method: _allocated(bench, method) for method in bench.forwards}
    if not options.memory:
        return {}
    return {method: _resident(bench.case, method) for method in bench.forwards}


def _allocated(bench: Bench, method: str) -> float:
    """MiB that a step needs at most on the GPU, parameters and moments included."""
    torch.cuda.reset_peak_memory_stats()
    bench.step(method)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def _resident(case: Case, method: str) -> float:
    """MiB of the largest resident set of a process that trains for three steps."""
    told = json.dumps(asdict(case) | {"method": method, "threads": torch.get_num_threads()})
    command = [sys.executable, __file__, "--resident", told]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def train_alone(told: str) -> None:
    """Train one method for three steps, then print the process's largest resident set in MiB."""
    described = json.loads(told)
    method = described.pop("method")
    torch.set_num_threads(described.pop("threads"))
    bench = Bench(Case(**described), (method,))
    for _ in range(3):
        bench.step(method)
    print(_largest_resident_set())


def _largest_resident_set() -> float:
    """That of this process so far, in MiB.

    Linux hands ``ru_maxrss`` on from the process that started this one, which may be larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


# Arithmetic.


def count_operations(case: Case, methods: Sequence[str]) -> dict[str, Arithmetic]:
    """Operations of each method with labels, on the meta device."""
    images = torch.empty(case.batch, 3, case.resolution, case.resolution, device="meta")
    labels = torch.empty(case.batch, 2, case.resolution, case.resolution, device="meta")
    classes = torch.empty(case.batch, 2, NUM_CLASSES, device="meta")
    step = step_operations(build(case, "meta").train(), images)
    found: dict[str, Arithmetic] = {}
    for method in methods:
        model = build(case, "meta").train()
        if method == "aligned":
            graphs = labeltrace.align(model)._graphs
            graph = graphs.graph((images,), {})
            state = [_entry(model, entry.name) for entry in graph.capture.state]
            given = (*state, *graph.capture.constants, images, labels)
            count, tokens = label_operations(graph.generated.module, *given)
        elif method == "paper":
            dense = DenseLabels(model, images)
            state = [_entry(model, ".".join(names)) for names in dense.state]
            given = (*state, *dense.constants, images, labels, classes)
            count, tokens = label_operations(dense.labelled, *given)
        else:
            continue
        found[method] = Arithmetic(step, count, tokens)
    return found


def _entry(model: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last)


# Reports.


def table(results: Sequence[Result], title: str) -> Table:
    """One row a case."""
    found = Table(title=title)
    headings = ("model", "batch", "pixels", "tokens", "mode", "precision", "plain\nstep ms")
    for heading in headings:
        found.add_column(heading, justify="left" if heading in ("model", "mode") else "right")
    methods = [method for method in METHODS[1:] if method in results[0].step]
    for method in methods:
        found.add_column(f"{method}:\nstep (quartiles)", justify="right")
        found.add_column("\nforward", justify="right")
        found.add_column("\nfloor", justify="right")
    if len(methods) == 2:
        found.add_column("aligned's part\nof paper's extra", justify="right")
    if results[0].peak_memory:
        found.add_column("peak MiB\nplain", justify="right")
        for method in methods:
            found.add_column(f"ratio:\n{method}", justify="right")
    for result in results:
        found.add_row(*_row(result, methods))
    return found


def _row(result: Result, methods: Sequence[str]) -> Iterator[str]:
    case, summary = result.case, result.summary()
    yield from (case.model, str(case.batch), str(case.resolution))
    yield str(result.arithmetic[methods[0]].tokens) if methods else ""
    yield from (case.mode, case.precision, f"{1e3 * summary['step']['plain']['seconds']:.1f}")
    for method in methods:
        step = summary["step"][method]
        low, high = step["lower_quartile_of_ratio"], step["upper_quartile_of_ratio"]
        yield f"{step['ratio']:.3f} ({low:.3f}–{high:.3f})"
        yield f"{summary['forward'][method]['ratio']:.3f}"
        yield f"{summary[f'floor_{method}']:.4f}"
    if len(methods) == 2:
        yield f"{summary['part_of_paper']:.2f}" if "part_of_paper" in summary else "–"
    if result.peak_memory:
        plain = result.peak_memory["plain"]
        yield f"{plain:.0f}"
        yield from (f"{result.peak_memory[method] / plain:.3f}" for method in methods)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All combinations of the settings asked for."""
    settings = (options.resolution, options.batch, options.modes, options.precisions)
    for model in options.models:
        for resolution, batch, mode, precision in itertools.product(*settings):
            yield Case(model, batch, resolution, mode, precision, options.device)


def main() -> None:
    options = _options()
    if options.resident:
        train_alone(options.resident)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Console(stderr=True)
    results: list[Result] = []
    for case in cases(options):
        progress.print(f"{case} ...", style="dim")
        results.append(measure(case, options))
        torch.compiler.reset()
    title = "A training step with labels, over the plain step"
    Console(width=None if sys.stdout.isatty() else 200).print(table(results, title))
    if options.json:
        hidden = ("json", "resident")
        settings = {key: value for key, value in vars(options).items() if key not in hidden}
        measured = [asdict(result) | {"summary": result.summary()} for result in results]
        document = {"machine": machine(options.device), "options": settings, "results": measured}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="images a step")
    parser.add_argument("--resolution", nargs="+", type=int, default=[224], help="pixels a side")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager"])
    parser.add_argument(
        "--precisions", nargs="+", choices=tuple(PRECISIONS), default=["float32"], help="autocast's"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory", action="store_true", help="peak memory on a processor too")
    parser.add_argument("--repeats", type=int, default=11, help="turns that are counted")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those")
    parser.add_argument("--steps", type=int, default=1, help="steps timed together in one turn")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="of the processor; torch's choice without it")
    parser.add_argument("--json", type=Path, help="a file for every number")
    parser.add_argument("--resident", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("repeats", "warmup", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if "plain" not in options.methods:
        parser.error("--methods needs plain: all else is compared with it")
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu does not see what a GPU does")
    return options


if __name__ == "__main__":
    main()
