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
    """Call `condition` until its value is true; return that value. If it never is, the failure shows `told()`.

    The last call begins after the deadline: until then this process, or the whole machine, may have stood still.
    """
    end = time.monotonic() + deadline
    while True:
        is_last = time.monotonic() >= end
        if value := condition():
            return value
        assert not is_last, told()
        time.sleep(pause)
