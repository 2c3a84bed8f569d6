"""Waiting for a condition, on a slow or busy machine, too. No test measures how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE = 60.0
"""Seconds after which a test stops waiting and fails."""


def wait_until(
    condition: Callable[[], Any], told: Callable[[], str] = str, *, pause: float = 0.02, deadline: float = DEADLINE
) -> Any:
    """Call `condition` until its value is true; return that value. If it never is, the failure shows `told()`."""
    end = time.monotonic() + deadline
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, told()
        time.sleep(pause)
