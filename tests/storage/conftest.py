"""A service that reaches its S3 store by a way that a test can make bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.s3 import S3
from tests.service import Service
from tests.tcp import Way

TIMEOUT = 3
"""Seconds for which the store of a shaky service may stand still."""
LIMITS = {"MAX_FILE_SIZE": "60 MiB", "DEFAULT_QUOTA": "500 MiB"}


@pytest.fixture
def way(bucket: S3) -> Iterator[Way]:
    """To the gateway."""
    way = Way(bucket.port)
    yield way
    way.close()


@pytest.fixture
def shaky(bucket: S3, way: Way, start_service: Callable[..., Service]) -> Service:
    """A service that reaches its store by that way."""
    endpoint = {"S3_ENDPOINT": f"http://127.0.0.1:{way.port}", "S3_TIMEOUT": TIMEOUT}
    return start_service(**bucket.settings() | endpoint, **LIMITS)
