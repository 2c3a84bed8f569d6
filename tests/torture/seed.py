"""Random numbers that can be repeated: by `--seed`, or by a seed that is printed."""

from __future__ import annotations

import random

import pytest


def seeded(request: pytest.FixtureRequest) -> random.Random:
    seed = request.config.getoption("--seed") or random.SystemRandom().randrange(1, 10**6)
    print(f"--seed {seed}")
    return random.Random(seed)
