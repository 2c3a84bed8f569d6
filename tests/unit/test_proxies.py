"""Which address counts, whatever clients write into the headers that proxies forward."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from media_gallery.http import middleware
from media_gallery.http.proxies import client_address, shortened
from media_gallery.rates import place_of
from media_gallery.settings import Settings

TRUSTED = ["127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:ffff::/48"]
PROXY = "127.0.0.1"


def address(peer: str = PROXY, **lines: list[str]) -> str:
    raw = [
        (name.replace("_", "-").encode(), line.encode("latin-1")) for name, values in lines.items() for line in values
    ]
    return client_address(peer, Headers(raw=raw), TRUSTED)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("for=192.0.2.60", "192.0.2.60"),
        ("For=192.0.2.60;proto=https;by=203.0.113.43", "192.0.2.60"),
        ('proto=https; for="192.0.2.60:4711"', "192.0.2.60"),
        ('for="[2001:db8::17]:4711"', "2001:db8::17"),
        ('for="[2001:db8::17]"', "2001:db8::17"),
        ('for="[2001:db8::17]:_port"', "2001:db8::17"),
        (r'for="192.0.\2.60"', "192.0.2.60"),
        ('for="[::ffff:192.0.2.60]"', "192.0.2.60"),
        ("for=198.51.100.9, for=192.0.2.60", "192.0.2.60"),
        ("for=198.51.100.9,for=192.0.2.60 , for=10.1.1.1", "192.0.2.60"),
        ('for=198.51.100.9, for=192.0.2.60, for="[2001:db8:ffff::2]", for=10.1.1.1', "192.0.2.60"),
        ('for=192.0.2.60;by="a;b, for=198.51.100.9"', "192.0.2.60"),
        (r'for=192.0.2.60;by="a\", for=198.51.100.9"', "192.0.2.60"),
        # None of these can be trusted, so the address is that of the nearest proxy.
        ("for=unknown", PROXY),
        ("for=_hidden", PROXY),
        ('for="_SEVKISEK:4711"', PROXY),
        ("for=unknown, for=10.1.1.1", "10.1.1.1"),
        ("for=192.0.2.60, for=_hidden", PROXY),
        ("for=192.0.2.60, proto=https", PROXY),
        ("for=300.0.2.60", PROXY),
        ("for=2001:db8::17", PROXY),  # must be quoted
        ('for="[2001:db8::17"', PROXY),
        ("192.0.2.60", PROXY),
        ("for==192.0.2.60", PROXY),
        ('for="192.0.2.60', PROXY),
        # A client's own text, to which a proxy has appended on the same line.
        ('for=198.51.100.9;by=", for=192.0.2.60', PROXY),
        ('for=198.51.100.9;by=", for="[2001:db8::17]:1"', PROXY),
        ('for=198.51.100.9, for=", for="_hidden"', PROXY),
        ("for=198.51.100.9;;;, for=192.0.2.60", "192.0.2.60"),
        ("for=127.0.0.1, for=192.0.2.60", "192.0.2.60"),
    ],
)
def test_forwarded(told: str, expected: str) -> None:
    assert address(forwarded=[told]) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("192.0.2.60", "192.0.2.60"),
        ("198.51.100.9, 192.0.2.60, 10.0.0.3", "192.0.2.60"),
        ("192.0.2.60:4711", "192.0.2.60"),
        ("[2001:db8::17]:4711", "2001:db8::17"),
        ("2001:db8::17", "2001:db8::17"),
        ("::ffff:192.0.2.60", "192.0.2.60"),
        ("127.0.0.1, 192.0.2.60", "192.0.2.60"),
        ("192.0.2.60, nonsense", PROXY),
        ("192.0.2.60,", PROXY),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("for=192.0.2.60", PROXY),
        ("192.0.2.60\xa0", "192.0.2.60"),
        ("1", PROXY),
        ("", PROXY),
    ],
)
def test_x_forwarded_for(told: str, expected: str) -> None:
    assert address(x_forwarded_for=[told]) == expected


def test_several_headers_of_a_kind_are_one_list() -> None:
    assert address(x_forwarded_for=["198.51.100.9", "192.0.2.60, 10.0.0.3", "10.0.0.2"]) == "192.0.2.60"
    assert address(forwarded=["for=198.51.100.9", 'for="[2001:db8::17]"', "for=10.0.0.2"]) == "2001:db8::17"
    assert address(forwarded=['for="unterminated', "for=192.0.2.60"]) == "192.0.2.60"


def test_if_two_headers_disagree_neither_is_trusted() -> None:
    assert address(forwarded=["for=192.0.2.60"], x_forwarded_for=["192.0.2.60"]) == "192.0.2.60"
    assert address(forwarded=["for=198.51.100.9"], x_forwarded_for=["192.0.2.60"]) == PROXY
    assert address(forwarded=["for=unknown"], x_forwarded_for=["192.0.2.60"]) == PROXY
    assert address(forwarded=[""], x_forwarded_for=["192.0.2.60"]) == "192.0.2.60"


def test_headers_of_an_unknown_proxy_are_ignored() -> None:
    for peer in ("192.0.2.1", "2001:db8::1"):
        assert address(peer, forwarded=["for=198.51.100.9"]) == peer
        assert address(peer, x_forwarded_for=["198.51.100.9"]) == peer
    assert address("::ffff:127.0.0.1", x_forwarded_for=["198.51.100.9"]) == "198.51.100.9"


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60))
def test_what_a_client_writes_before_its_proxy_never_counts(text: str) -> None:
    """The proxy appends to the client's line, as nginx does, or adds another line."""
    assert address(x_forwarded_for=[f"{text}, 192.0.2.60"]) == "192.0.2.60"
    assert address(forwarded=[f"{text}, for=192.0.2.60"]) in ("192.0.2.60", PROXY)
    assert address(forwarded=[f'{text}, for="[2001:db8::17]:80"']) in ("2001:db8::17", PROXY)
    assert address(forwarded=[text, "for=192.0.2.60"]) == "192.0.2.60"


def test_a_network_of_ipv6_is_one_place() -> None:
    assert place_of("2001:db8:1:2:3:4:5:6") == place_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert place_of("2001:db8:1:3::9") != place_of("2001:db8:1:2::9")
    assert place_of("fe80::1%eth0") == "fe80::/64"
    assert place_of("2001:db8:1:2::9", 48) == place_of("2001:db8:1:3::9", 48) == "2001:db8:1::/48"
    assert place_of("2001:db8::1", 128) != place_of("2001:db8::2", 128)
    assert place_of("192.0.2.60") == "192.0.2.60"
    assert place_of("a socket") == "a socket"


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ("192.0.2.60", "192.0.2.0/24"),
        ("::ffff:192.0.2.60", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("a socket", ""),
    ],
)
def test_a_shortened_address_names_a_network(whole: str, expected: str) -> None:
    assert shortened(whole) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [({}, "192.0.2.0/24"), ({"log_address": "full"}, "192.0.2.60"), ({"log_address": "none"}, None)],
)
def test_the_log_tells_as_much_of_an_address_as_the_setting_says(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], expected: str | None
) -> None:
    lines: list[dict[str, Any]] = []

    class Log:
        def is_enabled_for(self, level: int) -> bool:
            return True

        def info(self, event: str, **told: Any) -> None:
            lines.append(told)

    async def app(*_: Any) -> None: ...

    monkeypatch.setattr(middleware, "log", Log())
    scope: dict[str, Any] = {"type": "http", "method": "GET", "client": (PROXY, 1234),
                             "headers": [(b"x-forwarded-for", b"192.0.2.60")]}  # fmt: skip
    unused: Any = None
    asyncio.run(middleware.Observe(app, Settings.model_validate(setting))(scope, unused, unused))
    assert [line.get("address") for line in lines] == [expected]
