"""The engines that twins are checked with: one place to add one."""

from __future__ import annotations

from labeltrace.runtime.engine_choice import EngineName

ENGINES: tuple[EngineName, ...] = ("recorded", "auto")
