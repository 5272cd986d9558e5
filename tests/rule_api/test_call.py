"""What a rule sees of a call."""

from __future__ import annotations

from labeltrace.flow import LabelField, Operand
from labeltrace.layout import channel, renumbered
from labeltrace.rule_api.call import Call, listed


def test_a_call_has_its_arguments_in_order() -> None:
    constant = Operand(("weight",), (3,))
    weights = Operand(("scores",), (2,), renumbered([channel(2)]))
    stream = Operand(("items", 1), (5,), renumbered([channel(5)]), field=LabelField("x"))
    call = Call(
        "aten.mine", {"n": None, "z": 0, "w": constant, "l": [weights, [stream]]}, ((2,), (7,))
    )
    assert call.operands == (constant, weights, stream)
    assert (call.traced, call.labeled) == ((weights, stream), (stream,))
    assert call.output == (2,)
    assert (call.get("n", 3), call.get("z", 3), call.get("m", 3), call.get("m")) == (3, 0, 3, None)
    assert [operand.name for operand in call.operands] == ["weight", "scores", "items[1]"]
    assert (listed(3), listed((3, 5))) == ([3], [3, 5])
