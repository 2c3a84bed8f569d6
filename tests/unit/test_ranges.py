"""`Range` headers, against a plain model of RFC 9110, section 14."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_gallery.errors import RangeNotSatisfiable
from media_gallery.http.media import parse_range

sizes = st.integers(0, 50)


@given(first=sizes, last=sizes | st.none(), size=sizes)
def test_first_and_last(first: int, last: int | None, size: int) -> None:
    asked = f"bytes={first}-{'' if last is None else last}"
    wanted = [at for at in range(size) if at >= first and (last is None or at <= last)]
    if last is not None and last < first:
        assert parse_range(asked, size) is None
    elif not wanted:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(asked, size)
    else:
        assert parse_range(asked, size) == (wanted[0], wanted[-1] + 1)


@given(suffix=sizes, size=sizes)
def test_the_last_bytes(suffix: int, size: int) -> None:
    wanted = list(range(size))[-suffix:] if suffix else []
    if not wanted:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes=-{suffix}", size)
    else:
        assert parse_range(f"bytes=-{suffix}", size) == (wanted[0], size)


@given(st.text(max_size=40), sizes)
def test_nonsense_is_no_range(text: str, size: int) -> None:
    try:
        span = parse_range(text, size)
    except RangeNotSatisfiable:
        return
    assert span is None or 0 <= span[0] < span[1] <= size
