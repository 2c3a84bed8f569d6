"""Waiting for what comes sooner or later, on however slow and busy a machine. No test asks how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE = 60.0
"""Seconds after which what a test waits for is taken not to come."""


def wait_until(
    condition: Callable[[], Any], told: Callable[[], str] = str, *, pause: float = 0.02, deadline: float = DEADLINE
) -> Any:
    """What is true of a condition's values, as soon as there is one; `told` says what was wrong where there is none."""
    end = time.monotonic() + deadline
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, told()
        time.sleep(pause)
