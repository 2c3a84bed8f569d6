"""`Range` headers, compared with a simple model of RFC 9110, section 14."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_gallery.errors import RangeNotSatisfiable
from media_gallery.http.media import parse_range

sizes = st.integers(0, 50)


def outcome(asked: str, size: int) -> object:
    try:
        return parse_range(asked, size)
    except RangeNotSatisfiable as error:
        return error.headers


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
        with pytest.raises(RangeNotSatisfiable) as refused:
            parse_range(f"bytes=-{suffix}", size)
        assert refused.value.headers == {"Content-Range": f"bytes */{size}"}
    else:
        assert parse_range(f"bytes=-{suffix}", size) == (wanted[0], size)


@given(first=sizes, last=sizes, size=sizes, space=st.sampled_from(["", " ", "  "]))
def test_spaces_and_the_case_of_the_unit_mean_nothing(first: int, last: int, size: int, space: str) -> None:
    plain, spaced = f"bytes={first}-{last}", f"{space}BYTES{space}={space}{first}{space}-{space}{last}{space}"
    assert outcome(spaced, size) == outcome(plain, size)


@given(st.lists(st.tuples(sizes, sizes), min_size=2, max_size=5), sizes)
def test_many_ranges_are_the_whole(ranges: list[tuple[int, int]], size: int) -> None:
    assert parse_range("bytes=" + ",".join(f"{first}-{last}" for first, last in ranges), size) is None


@given(st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda unit: unit != "bytes"), sizes, sizes)
def test_another_unit_is_the_whole(unit: str, first: int, size: int) -> None:
    assert parse_range(f"{unit}={first}-", size) is None


@given(first=st.integers(0, 50), digits=st.integers(18, 40), size=st.integers(51, 100))
def test_however_far_it_reaches(first: int, digits: int, size: int) -> None:
    """A client may send any number. It gets all that there is, or the whole file."""
    assert parse_range(f"bytes={first}-{'9' * digits}", size) in ((first, size), None)


@given(st.text(max_size=40) | st.text("bytes=0123456789-, ", max_size=20).map("bytes=".__add__), sizes)
def test_nonsense_is_no_range(text: str, size: int) -> None:
    try:
        span = parse_range(text, size)
    except RangeNotSatisfiable:
        return
    assert span is None or 0 <= span[0] < span[1] <= size
