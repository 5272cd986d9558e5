"""Results of a captured graph whose sizes depend on the values of tensors.

A captured graph has a symbol in the place of such a size: how many tokens a mask keeps, say. A
recorded run knows every size.
"""

from __future__ import annotations

from labeltrace.capture.call_records import CallKind, CallRecord
from labeltrace.errors import LayoutError
from labeltrace.tracing.environment import Environment


def check_sizes_are_known(record: CallRecord, environment: Environment) -> None:
    """Check that the sizes of a call's results do not depend on values that the model computes.

    A mask that is a buffer of the model keeps as many positions in every call; its symbol is the
    only one.

    Raises:
        LayoutError: they do.
    """
    if all(tensor.size_is_known for tensor in record.tensors):
        return
    calls = environment.calls
    others = [calls[name] for name in record.inputs if not environment.comes_from_image(name)]
    traced = [calls[name] for name in record.inputs if environment.comes_from_image(name)]
    if any(other.kind is not CallKind.INPUT for other in others) or len(traced) > 1:
        raise LayoutError(
            "how large its result is depends on the values of tensors, which a captured graph does "
            'not know; align(model, engine="recorded") follows the model as it runs'
        )
