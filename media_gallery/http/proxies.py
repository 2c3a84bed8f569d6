"""The address a request comes from, if proxies are in front: `Forwarded` (RFC 7239) and `X-Forwarded-For`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

Address = IPv4Address | IPv6Address
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105, the word for it in RFC 9110
_PAIR = re.compile(rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")')
_BREAK = re.compile(r"[ \t]*([;,])[ \t;,]*|[ \t]*$")
_NODE = re.compile(r"\[([^]]+)\](?::\w+)?|([\d.]+)(?::\w+)?|([^\[\]]+)")


def client_address(peer: str, headers: Headers, trusted: Sequence[str]) -> str:
    """The last address before the trusted proxies; or that of the first trusted proxy that tells no address before it.

    If both headers are there and disagree, the client may have written one: then it is the address of the connection.
    """
    speaker = _address(peer)
    if speaker is None:
        return peer
    proxies = _networks(tuple(trusted))
    told = {
        _last_untrusted(speaker, (node for line in reversed(lines) for node in nodes(line)), proxies)
        for lines, nodes in (
            (headers.getlist("forwarded"), _forwarded),
            (headers.getlist("x-forwarded-for"), _listed),
        )
        if any(lines)
    }
    return str(told.pop() if len(told) == 1 else speaker)


def address_of(scope: Scope, trusted: Sequence[str]) -> str:
    """The IP address of a request's client; trusted proxies may tell it."""
    peer = scope["client"][0] if scope.get("client") else "127.0.0.1"
    return client_address(peer, Headers(scope=scope), trusted)


@lru_cache(maxsize=4096)
def shortened(address: str) -> str:
    """The network of an address: `192.0.2.0/24`, `2001:db8::/48`; empty if it is no IP address."""
    if (ip := _address(address)) is None:
        return ""
    plain = type(ip)(int(ip))  # without the name of an interface
    return str(ip_network((plain, 24 if plain.version == 4 else 48), strict=False))


@lru_cache(maxsize=16)
def _networks(trusted: tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
    return [ip_network(network, strict=False) for network in trusted]


def _last_untrusted(speaker: Address, nodes: Iterator[str], proxies: Sequence[IPv4Network | IPv6Network]) -> Address:
    while any(speaker in network for network in proxies):
        before = _address(next(nodes, ""))
        if before is None:
            break
        speaker = before
    return speaker


@lru_cache(maxsize=512)  # the same proxies and clients come again and again
def _address(node: str) -> Address | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80` -> the address; None if it is hidden."""
    match = _NODE.fullmatch(node.strip())
    try:
        address = ip_address(next(filter(None, match.groups()))) if match else None
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _listed(line: str) -> Iterator[str]:
    yield from reversed(line.split(","))


def _forwarded(line: str) -> Iterator[str]:
    """The `for` of each element, the last first; empty if an element has none, or if the line is malformed."""
    nodes, at = [""], 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        end = pair and _BREAK.match(line, pair.end())
        if not pair or not end:
            nodes = [""]
            break
        if pair[1].lower() == "for":
            nodes[-1] = pair[2] or re.sub(r"\\(.)", r"\1", pair[3] or "")
        if end[1] and "," in end[0]:
            nodes.append("")
        at = end.end()
    yield from reversed(nodes)
