"""Services that reach their S3 store by a connection that a test can disturb."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.s3 import S3
from tests.service import Service
from tests.tcp import Way
from tests.waiting import DEADLINE

TIMEOUT = 3
"""Seconds for which the store of a shaky service may pause. A busy machine may pause for as long, so tests send
an upload again until it is taken.
"""
LIMITS = {"MAX_FILE_SIZE": "60 MiB", "DEFAULT_QUOTA": "500 MiB"}


@pytest.fixture
def way(bucket: S3) -> Iterator[Way]:
    """The connection to the gateway."""
    way = Way(bucket.port)
    yield way
    way.close()


@pytest.fixture
def distant(bucket: S3, way: Way, start_service: Callable[..., Service]) -> Service:
    """A service that reaches its store by that connection, and waits for it for a long time."""
    endpoint = {"S3_ENDPOINT": f"http://127.0.0.1:{way.port}", "STOP_TIMEOUT": DEADLINE}
    return start_service(**bucket.settings() | endpoint, **LIMITS)


@pytest.fixture
def shaky(bucket: S3, way: Way, start_service: Callable[..., Service]) -> Service:
    """The same, but it does not wait long."""
    endpoint = {"S3_ENDPOINT": f"http://127.0.0.1:{way.port}", "S3_TIMEOUT": TIMEOUT}
    return start_service(**bucket.settings() | endpoint, **LIMITS)
