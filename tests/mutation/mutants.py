"""Which changes are made: cosmic-ray's operators, at the places where they can change behavior."""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec, WorkItem

ROOT = Path(__file__).parents[2]

PACKAGES = ("index_notation", "layout", "flow", "rule_api", "rule_helpers", "tracing", "label_ops")

FILES = tuple(
    path.relative_to(ROOT).as_posix()
    for folder in (*(f"labeltrace/{package}" for package in PACKAGES), "rules")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
"""What decides where labels go: layouts, flows, rules, the trace and the label arithmetic."""

OPERATORS = tuple(
    f"core/{name}"
    for name in (
        "AddNot",
        "ExceptionReplacer",
        "NumberReplacer",
        "RemoveDecorator",
        "ReplaceAndWithOr",
        "ReplaceBinaryOperator_Add_Sub",
        "ReplaceBinaryOperator_BitAnd_BitOr",
        "ReplaceBinaryOperator_BitOr_BitAnd",
        "ReplaceBinaryOperator_Div_Mul",
        "ReplaceBinaryOperator_FloorDiv_Mul",
        "ReplaceBinaryOperator_Mod_FloorDiv",
        "ReplaceBinaryOperator_Mul_Add",
        "ReplaceBinaryOperator_Mul_FloorDiv",
        "ReplaceBinaryOperator_Pow_Mul",
        "ReplaceBinaryOperator_Sub_Add",
        "ReplaceBreakWithContinue",
        "ReplaceComparisonOperator_Eq_NotEq",
        "ReplaceComparisonOperator_GtE_Gt",
        "ReplaceComparisonOperator_Gt_GtE",
        "ReplaceComparisonOperator_IsNot_Is",
        "ReplaceComparisonOperator_Is_IsNot",
        "ReplaceComparisonOperator_LtE_Lt",
        "ReplaceComparisonOperator_Lt_LtE",
        "ReplaceComparisonOperator_NotEq_Eq",
        "ReplaceContinueWithBreak",
        "ReplaceFalseWithTrue",
        "ReplaceOrWithAnd",
        "ReplaceTrueWithFalse",
        "ReplaceUnaryOperator_Delete_Invert",
        "ReplaceUnaryOperator_Delete_Not",
        "ReplaceUnaryOperator_Delete_USub",
        "ZeroIterationForLoop",
    )
)
"""One or two replacements of each sign; the rest of cosmic-ray's (``a + b`` to ``a ^ b``) fail at
once with a type error, and would flatter the score."""

EXPRESSIONS = {"arith_expr", "term", "expr", "and_expr", "power"}
"""The parents of a sign between two values; elsewhere `*` and `**` are a signature's or unpack."""

Position = tuple[int, int]


def all_mutants() -> list[WorkItem]:
    """Every mutant; equal code gives equal names, so that results outlive a session."""
    return [mutant for file in FILES for mutant in mutants_of(file)]


def mutants_of(file: str) -> Iterator[WorkItem]:
    source = (ROOT / file).read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(source)))
    ignored = list(without_effect(source))
    for name in OPERATORS:
        operator = get_operator(name)()
        found = ((node, *span) for node in nodes for span in operator.mutation_positions(node))
        for occurrence, (node, start, end) in enumerate(found):
            unpacks = "BinaryOperator" in name and node.parent.type not in EXPRESSIONS
            if unpacks or any(first <= start and end <= last for first, last in ignored):
                continue
            mutation = MutationSpec(
                module_path=Path(file),
                operator_name=name,
                occurrence=occurrence,
                start_pos=start,
                end_pos=end,
            )
            yield WorkItem.single(digest(source, file, name, occurrence), mutation)


def without_effect(source: str) -> Iterator[tuple[Position, Position]]:
    """Type annotations, which are never evaluated, and the `strict` of `zip`, which only guards."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.arg(annotation=ast.expr() as annotation):
                yield span(annotation)
            case ast.AnnAssign(annotation=annotation):
                yield span(annotation)
            case ast.FunctionDef(returns=ast.expr() as annotation):
                yield span(annotation)
            case ast.Call(func=ast.Name(id="zip"), keywords=[ast.keyword(arg="strict", value=v)]):
                yield span(v)


def span(node: ast.expr) -> tuple[Position, Position]:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def original(mutation: MutationSpec) -> str:
    """The source of the mutation's file as it is."""
    return (ROOT / mutation.module_path).read_text(encoding="utf-8")


def mutated(mutation: MutationSpec) -> str:
    """The source of the mutation's file with the mutation in it."""
    source = original(mutation)
    operator = get_operator(mutation.operator_name)()
    changed = mutate_code(source, operator, mutation.occurrence)
    assert changed is not None and changed != source, mutation
    return str(changed)


def sampled(mutants: Sequence[WorkItem], count: int | None) -> list[WorkItem]:
    """A random sample in which each file has its share; a larger one holds every smaller one."""
    by_file: dict[Path, list[WorkItem]] = {}
    for mutant in mutants:
        by_file.setdefault(mutant.mutations[0].module_path, []).append(mutant)
    drawn: list[tuple[float, WorkItem]] = []
    for file, members in by_file.items():
        generator = random.Random(str(file))
        generator.shuffle(members)
        offset = generator.random()
        drawn += [((rank + offset) / len(members), item) for rank, item in enumerate(members)]
    drawn.sort(key=lambda pair: pair[0])
    return [item for _, item in drawn[:count]]


def digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


def sources_digest(files: Iterable[Path]) -> str:
    return digest(*(path.read_text(encoding="utf-8") for path in files))
