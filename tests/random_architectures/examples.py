"""How many architectures a test draws.

`LABELTRACE_FUZZ_EXAMPLES=10000` raises the number of architectures and draws new ones each time, in
several parts, which processes can share.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

FUZZ_EXAMPLES = int(os.environ.get("LABELTRACE_FUZZ_EXAMPLES", "0"))
PARTS = 40 if FUZZ_EXAMPLES else 1


def examples(number: int) -> settings:
    """So many architectures, always the same ones, unless a fuzz run asks for more.

    Only a fuzz run takes the minutes to look for the smallest model that fails.
    """
    return settings(
        phases=[Phase.generate, Phase.shrink] if FUZZ_EXAMPLES else [Phase.generate],
        max_examples=-(-FUZZ_EXAMPLES // PARTS) or number,
        derandomize=not FUZZ_EXAMPLES,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
