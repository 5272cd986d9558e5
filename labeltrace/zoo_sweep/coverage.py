"""The page `docs/coverage.md`, from the results of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeltrace.models_zoo import Family, find
from labeltrace.zoo_sweep.records import Check, Outcome

MAX_NAMES = 8
MAX_REASON = 300
FOLLOWING_MAXIMA = "approximations_following_maxima"


@dataclass(frozen=True)
class FamilyCoverage:
    """The results of a family.

    Attributes:
        name: name of the family.
        structural: outcomes of structural checks, one for each member in the sweep.
        numeric: outcomes of numeric checks.
    """

    name: str
    structural: tuple[Outcome, ...]
    numeric: tuple[Outcome, ...]

    @property
    def traced(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.structural if outcome.passed)

    @property
    def exact(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.traced if not outcome.findings["approximations"])

    @property
    def is_exact(self) -> bool:
        """Whether every member in the sweep was traced, and no node is approximate."""
        return len(self.exact) == len(self.structural) > 0

    @property
    def is_exact_following_maxima(self) -> bool:
        """Same as `is_exact`, with the rules of `labeltrace.FOLLOW_MAXIMA`."""
        known = (outcome.findings.get(FOLLOWING_MAXIMA) for outcome in self.traced)
        exact = sum(reasons == {} for reasons in known)  # older results have no such entry
        return exact == len(self.structural) > 0

    @property
    def fixed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.traced if outcome.findings["fixed_batch_reason"])

    @property
    def family(self) -> Family | None:
        return find(self.name)


def group_by_family(outcomes: Iterable[Outcome]) -> list[FamilyCoverage]:
    """The outcomes by family, in their order."""
    grouped: dict[str, dict[Check, list[Outcome]]] = {}
    for outcome in outcomes:
        checks = grouped.setdefault(outcome.task.family, {check: [] for check in Check})
        checks[outcome.task.check].append(outcome)
    return [
        FamilyCoverage(name, tuple(checks[Check.STRUCTURAL]), tuple(checks[Check.NUMERIC]))
        for name, checks in grouped.items()
    ]


def render_page(sweeps: Sequence[Sequence[Outcome]], command: str) -> str:
    """The page in Markdown.

    Args:
        sweeps: the results of each sweep, one for each task. The first is the main one; others
            were made with other libraries; each has a separate column.
        command: the command that produces the results.
    """
    measured = [group_by_family(outcomes) for outcomes in sweeps]
    reasons = _number_reasons([family for families in measured for family in families])
    parts = [
        _intro(command),
        _summary(sweeps, measured),
        _versions(sweeps),
        _family_table(measured, reasons),
        _approximations(measured, reasons),
        _fixed_batches(measured),
        _failures(sweeps),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro(command: str) -> str:
    return (
        "# Coverage\n\n"
        "What labeltrace does with the models of [the zoo](zoo.md), measured. This page is written "
        f"by\n\n``sh\n{command}\n``\n\n"
        "so whatever is to change here has to change in the code. Models are captured in eval mode "
        "on the `meta` device, at their own image size. *Numbers* are checked on a real model with "
        "random weights, the family's smallest, at the smallest images that it takes, in eval and "
        "train mode with batches of 2 and of 3: rows sum to one within 1e-5, none is negative, and "
        "outputs, buffers and random state are those of the plain model bit for bit."
    )


def _summary(
    sweeps: Sequence[Sequence[Outcome]], measured: Sequence[Sequence[FamilyCoverage]]
) -> str:
    columns = [dict(_totals(families)) for families in measured]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return _table(("", *map(_library, sweeps)), [row for row in rows if any(row[1:])])


def _totals(families: Sequence[FamilyCoverage]) -> list[tuple[str, str]]:
    """What a sweep counts, with its name."""
    structural = [outcome for each in families for outcome in each.structural]
    numeric = [outcome for each in families for outcome in each.numeric]
    traced = [outcome for outcome in structural if outcome.passed]
    measured = [each for each in families if each.structural]
    exact = [outcome for each in families for outcome in each.exact]
    fixed = [outcome for each in families for outcome in each.fixed]
    return [
        ("models traced", _percentage(len(traced), len(structural))),
        (
            "families with every model traced",
            _percentage(sum(len(e.traced) == len(e.structural) for e in measured), len(measured)),
        ),
        ("models exact", _percentage(len(exact), len(traced))),
        ("families exact", _percentage(sum(each.is_exact for each in measured), len(measured))),
        (
            "families exact with `rules=labeltrace.FOLLOW_MAXIMA`",
            _percentage(sum(each.is_exact_following_maxima for each in measured), len(measured)),
        ),
        ("models with a dynamic batch", _percentage(len(traced) - len(fixed), len(traced))),
        (
            "families with correct numbers",
            _percentage(sum(o.passed for o in numeric), len(numeric)),
        ),
        (
            "processor seconds, capture; trace and label graph",
            f"{_seconds(traced, 'capture'):.0f}; {_trace_seconds(traced):.0f}",
        ),
    ]


def _library(outcomes: Sequence[Outcome]) -> str:
    """The heading of a sweep's column: the version of torch."""
    versions = dict.fromkeys(o.versions.get("torch", "").partition("+")[0] for o in outcomes)
    return "torch " + ", ".join(versions)


def _versions(sweeps: Sequence[Sequence[Outcome]]) -> str:
    """The versions that a sweep was made with; several where its results differ in them."""
    found = [_versions_of(outcomes) for outcomes in sweeps]
    names = dict.fromkeys(name for versions in found for name in versions)
    rows = [(name, *(versions.get(name, "") for versions in found)) for name in names]
    return "Measured with\n\n" + _table(("", *map(_library, sweeps)), rows)


def _versions_of(outcomes: Sequence[Outcome]) -> dict[str, str]:
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for name, version in outcome.versions.items():
            found.setdefault(name, Counter())[version] += 1
    texts: dict[str, str] = {}
    for name, known in found.items():
        several = [f"{version} ({number} results)" for version, number in known.items()]
        texts[name] = ", ".join(several if len(known) > 1 else known)
    return texts


def _family_table(measured: Sequence[Sequence[FamilyCoverage]], reasons: Mapping[str, int]) -> str:
    headings = (
        "family",
        "source",
        "traced",
        "exact",
        "approximations",
        "batch",
        "capture, s",
        "trace, s",
        "numbers",
    )
    rows: dict[str, list[tuple[str, ...]]] = {}
    for families in measured:
        for each in families:
            rows.setdefault(each.name, []).append(_family_row(each, reasons))
    several = " Where sweeps differ, a cell has the value of each." if len(measured) > 1 else ""
    return (
        "## Families\n\n"
        "*Traced* counts the models in this sweep; *approximations* are numbered below; seconds "
        "are the processor's, a model on average: *capture* is `torch.export` and what belongs to "
        f"it, *trace* the rules and the label graph.{several}\n\n"
        + _table(headings, [_merged(found) for found in rows.values()])
    )


def _merged(rows: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """One row for several sweeps: equal cells once, others one after the other."""
    cells = zip(*rows, strict=True)
    return tuple(cell[0] if len(set(cell)) == 1 else " / ".join(cell) for cell in cells)


def _family_row(each: FamilyCoverage, reasons: Mapping[str, int]) -> tuple[str, ...]:
    used = {reason for o in each.traced for reason in o.findings["approximations"]}
    numbers = sorted(reasons[reason] for reason in used)
    count = len(each.traced)
    return (
        each.name,
        each.family.source if each.family else "",
        f"{count}/{len(each.structural)}",
        f"{len(each.exact)}/{count}" if count else "",
        ", ".join(map(str, numbers)),
        _batch(each),
        f"{_seconds(each.traced, 'capture') / count:.2f}" if count else "",
        f"{_trace_seconds(each.traced) / count:.2f}" if count else "",
        ", ".join(sorted({"correct" if o.passed else str(o.status) for o in each.numeric})),
    )


def _batch(each: FamilyCoverage) -> str:
    if not each.traced:
        return ""
    return f"fixed in {len(each.fixed)}" if each.fixed else "dynamic"


def _approximations(
    measured: Sequence[Sequence[FamilyCoverage]], reasons: Mapping[str, int]
) -> str:
    if not reasons:
        return ""
    counted = [_nodes_and_families(families) for families in measured]
    rows = [
        (str(number), reason, *_merged([found.get(reason, ("0", "")) for found in counted]))
        for reason, number in reasons.items()
    ]
    intro = "What each means is in [Approximations](approximations.md)."
    table = _table(("", "reason", "nodes", "families"), rows)
    return f"## Approximations\n\n{intro}\n\n{table}"


def _nodes_and_families(families: Sequence[FamilyCoverage]) -> dict[str, tuple[str, str]]:
    """How many nodes are approximate for a reason, and in which families."""
    nodes: Counter[str] = Counter()
    names: dict[str, dict[str, None]] = {}
    for each in families:
        for outcome in each.traced:
            nodes.update(outcome.findings["approximations"])
            for reason in outcome.findings["approximations"]:
                names.setdefault(reason, {})[each.name] = None
    return {reason: (str(nodes[reason]), ", ".join(found)) for reason, found in names.items()}


def _fixed_batches(measured: Sequence[Sequence[FamilyCoverage]]) -> str:
    fixed = [outcome for families in measured for each in families for outcome in each.fixed]
    if not fixed:
        return ""
    groups = _group(fixed, lambda outcome: outcome.findings["fixed_batch_reason"])
    rows = [(_names(group), _shorten(reason)) for reason, group in groups.items()]
    return "## Fixed batch\n\n" + _table(("models", "reason"), rows)


def _failures(sweeps: Sequence[Sequence[Outcome]]) -> str:
    rows: list[tuple[str, str]] = []
    for outcomes in sweeps:
        library = f"{_library(outcomes)}: " if len(sweeps) > 1 else ""
        failed = [outcome for outcome in outcomes if not outcome.passed]
        groups = _group(failed, lambda outcome: f"{outcome.task.check}: {outcome.first_line}")
        rows += [(_names(group), library + _shorten(text)) for text, group in groups.items()]
    return "## What failed\n\n" + _table(("models", "check and error"), rows) if rows else ""


# Parts. -------------------------------------------------------------------------------------------


def _number_reasons(families: Sequence[FamilyCoverage]) -> dict[str, int]:
    """The reasons for approximations, numbered from the most frequent."""
    counted: Counter[str] = Counter()
    for each in families:
        counted.update({r for o in each.traced for r in o.findings["approximations"]})
    ordered = sorted(counted, key=lambda reason: (-counted[reason], reason))
    return {reason: number for number, reason in enumerate(ordered, 1)}


def _group(outcomes: Iterable[Outcome], key: Callable[[Outcome], Any]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def _seconds(outcomes: Iterable[Outcome], what: str) -> float:
    return float(sum(outcome.findings["seconds"][what] for outcome in outcomes))


def _trace_seconds(outcomes: Sequence[Outcome]) -> float:
    return _seconds(outcomes, "trace") + _seconds(outcomes, "generate")


def _percentage(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f}%)" if whole else ""


def _names(outcomes: Sequence[Outcome]) -> str:
    names = [f"`{outcome.task.model}`" for outcome in outcomes]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_REASON else flat[: MAX_REASON - 1] + "…"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    for character, written in (("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("\n", " ")):
        text = text.replace(character, written)
    return text
