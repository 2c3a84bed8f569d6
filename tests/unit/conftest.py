from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from media_gallery.thumbnails import Thumbnailer
from tests.unit.decoding import LIMITS


@pytest.fixture(scope="module")
async def decoder() -> AsyncIterator[Thumbnailer]:
    """One decoder with the limits of LIMITS."""
    thumbnailer = Thumbnailer(1, **LIMITS)
    yield thumbnailer
    await thumbnailer.close()
