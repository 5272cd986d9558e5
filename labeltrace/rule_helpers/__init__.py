"""What rules are made of: element-wise steps, contractions, steps of the user's own.

A rule of your own needs no more than this package, `labeltrace.flow` and `labeltrace.layout`.
"""

from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_helpers.contraction import contract
from labeltrace.rule_helpers.elementwise import carry, combine, relayout, with_layout
from labeltrace.rule_helpers.user_step import custom_step, even_mix

__all__ = [
    "Call",
    "Rule",
    "carry",
    "combine",
    "contract",
    "custom_step",
    "even_mix",
    "relayout",
    "with_layout",
]
