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


def render_page(outcomes: Sequence[Outcome], command: str) -> str:
    """The page in Markdown.

    Args:
        outcomes: the results, one for each task.
        command: the command that produces them.
    """
    families = group_by_family(outcomes)
    reasons = _number_reasons(families)
    parts = [
        _intro(command),
        _summary(families),
        _versions(outcomes),
        _family_table(families, reasons),
        _approximations(families, reasons),
        _fixed_batches(families),
        _failures(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro(command: str) -> str:
    return (
        "# Coverage\n\n"
        "What labeltrace does with the models of [the zoo](zoo.md), measured. This page is written "
        f"by\n\n```sh\n{command}\n```\n\n"
        "so whatever is to change here has to change in the code. Models are captured in eval mode "
        "on the `meta` device, at their own image size. *Numbers* are checked on a real model with "
        "random weights, the family's smallest, at the smallest images that it takes, in eval and "
        "train mode with batches of 2 and of 3: rows sum to one within 1e-5, none is negative, and "
        "outputs, buffers and random state are those of the plain model bit for bit."
    )


def _summary(families: Sequence[FamilyCoverage]) -> str:
    structural = [outcome for each in families for outcome in each.structural]
    numeric = [outcome for each in families for outcome in each.numeric]
    traced = [outcome for outcome in structural if outcome.passed]
    measured = [each for each in families if each.structural]
    exact = [outcome for each in families for outcome in each.exact]
    fixed = [outcome for each in families for outcome in each.fixed]
    rows = [
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
    return _table(("", ""), [row for row in rows if row[1]])


def _versions(outcomes: Sequence[Outcome]) -> str:
    """The versions of the libraries; with counts where results differ."""
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for name, version in outcome.versions.items():
            found.setdefault(name, Counter())[version] += 1
    lines = []
    for name, known in found.items():
        several = [f"{version} ({number} results)" for version, number in known.items()]
        lines.append(f"- {name} " + ", ".join(several if len(known) > 1 else known))
    return "Measured with\n\n" + "\n".join(lines)


def _family_table(families: Sequence[FamilyCoverage], reasons: Mapping[str, int]) -> str:
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
    return (
        "## Families\n\n"
        + (
            "*Traced* counts the models in this sweep; *approximations* are numbered below; "
            "seconds are the processor's, a model on average: *capture* is `torch.export` and what "
            "goes around it, *trace* the rules and the label graph.\n\n"
        )
        + _table(headings, [_family_row(each, reasons) for each in families])
    )


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


def _approximations(families: Sequence[FamilyCoverage], reasons: Mapping[str, int]) -> str:
    if not reasons:
        return ""
    nodes: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for each in families:
        for outcome in each.traced:
            nodes.update(outcome.findings["approximations"])
        for reason in {r for o in each.traced for r in o.findings["approximations"]}:
            places.setdefault(reason, []).append(each.name)
    rows = [
        (str(number), reason, str(nodes[reason]), ", ".join(places[reason]))
        for reason, number in reasons.items()
    ]
    intro = "What each means is in [Approximations](approximations.md)."
    table = _table(("", "reason", "nodes", "families"), rows)
    return f"## Approximations\n\n{intro}\n\n{table}"


def _fixed_batches(families: Sequence[FamilyCoverage]) -> str:
    fixed = [outcome for each in families for outcome in each.fixed]
    if not fixed:
        return ""
    groups = _group(fixed, lambda outcome: outcome.findings["fixed_batch_reason"])
    rows = [(_join_names(group), _shorten(reason)) for reason, group in groups.items()]
    return "## Fixed batch\n\n" + _table(("models", "reason"), rows)


def _failures(outcomes: Sequence[Outcome]) -> str:
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not failed:
        return ""
    groups = _group(failed, lambda outcome: f"{outcome.task.check}: {outcome.first_line}")
    rows = [(_join_names(group), _shorten(reason)) for reason, group in groups.items()]
    return "## What failed\n\n" + _table(("models", "check and error"), rows)


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


def _seconds(outcomes: Iterable[Outcome], stage: str) -> float:
    return float(sum(outcome.findings["seconds"][stage] for outcome in outcomes))


def _trace_seconds(outcomes: Sequence[Outcome]) -> float:
    return _seconds(outcomes, "trace") + _seconds(outcomes, "generate")


def _percentage(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.1f}%)" if total else ""


def _join_names(outcomes: Sequence[Outcome]) -> str:
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
