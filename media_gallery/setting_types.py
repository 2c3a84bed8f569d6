"""The types of values that settings have: what each may be, and the message if it is wrong."""

from __future__ import annotations

import re
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from media_gallery.errors import BadRequest
from media_gallery.models import Jid, prepared_domain
from media_gallery.quantities import parse_bytes, parse_seconds

NO_RATE = "none"
"""The rate that limits nothing."""
_LONGEST = 100 * 365 * 86400
"""The most seconds of any time: clocks, databases and systems have limits not far above."""
_MANY = 10**12
"""The most that any number may be: far more than makes sense, far less than the limit of a database."""


def _check_seconds(value: float) -> float:
    if not value <= _LONGEST:
        raise ValueError("must be a time of 100 years at most")
    return value


def _split(value: Any) -> Any:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _account(text: str) -> str:
    jid = _jid(text)
    if not jid.local:
        raise ValueError(f"{text!r} is not the JID of an account, such as anna@example.org")
    return jid.bare


def _jid(text: str) -> Jid:
    try:
        return Jid.parse(text)
    except BadRequest:
        raise ValueError(f"{text!r} is not a valid JID") from None


def _check_rate(value: str) -> str:
    try:
        if value != NO_RATE:
            for rate in parse_many(value):
                if not (1 <= rate.get_expiry() <= _LONGEST and 1 <= rate.amount <= _MANY):
                    raise ValueError(rate)
    except ValueError:
        raise ValueError("must be a rate such as 10/minute or 5/minute; 50/day, or `none`") from None
    return value


def _check_network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not an address or a network such as 192.0.2.0/24") from None
    return value


def _check_url(value: str) -> str:
    if not is_url(value, "http", "https") or set(value) & set("?#"):
        raise ValueError("must be an address such as https://gallery.example.org")
    return value.rstrip("/")


def is_url(value: str, *schemes: str) -> bool:
    """Whether it has one of the schemes, a host and, if a port is named, a possible one."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", value)
    except ValueError:
        return False


def is_address(url: str) -> bool:
    """Whether the ports of all hosts in it are possible ones."""
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    except ValueError:
        return False
    return all(re.fullmatch(r"(\[[^]]*\]|[^][:]*)(:\d{0,5})?", host) for host in hosts)


def _check_optional_url(value: str) -> str:
    return _check_url(value) if value else value


def _check_listen(value: str) -> str:
    try:
        parse_listen(value)
    except ValueError:
        raise ValueError("must be an IP address and a port, such as 127.0.0.1:8080 or [::]:8080") from None
    return value


def parse_listen(value: str) -> tuple[IPv4Address | IPv6Address, int]:
    """IP address and port of `host:port`. Raises ValueError."""
    host, _, port = value.rpartition(":")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise ValueError(port)
    return ip_address(host.removeprefix("[").removesuffix("]")), int(port)


def own_url(listen: str) -> str:
    """The URL at which programs on the same machine reach a service that listens there."""
    ip, port = parse_listen(listen)
    if ip.is_unspecified:
        ip = ip_address("127.0.0.1" if ip.version == 4 else "::1")
    return f"http://{ip if ip.version == 4 else f'[{ip}]'}:{port}"


def port_of(url: str) -> int:
    """The port of an address of http or https, named or not."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Whether only programs on the same machine reach this host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_domain(value: str) -> str:
    try:
        return prepared_domain(value)
    except (ValueError, UnicodeError):
        raise ValueError(f"{value!r} is not a domain such as example.org") from None


def _check_origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@]+", value):
        raise ValueError(f"{value!r} is not an origin such as https://chat.example.org, or *")
    return value


def _check_jid(value: str) -> str:
    if value:
        _jid(value)
    return value


def _check_certificates(path: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificates in PEM") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path


def _check_secret(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < 32:  # with a token, secrets can be guessed offline
        raise ValueError("must have 32 characters at least")
    return value


def _check_prefix(value: str) -> str:
    if value and not re.fullmatch(r"(/[\w.-]+)+/?", value, re.ASCII):
        raise ValueError("must be a path such as /protected")
    return value.rstrip("/")


Choice = BeforeValidator(_lower)
"""With a Literal in small letters: capital letters are taken, too."""
Url = Annotated[str, AfterValidator(_check_optional_url)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0), AfterValidator(_check_seconds)]
Number = Annotated[int, Field(le=_MANY)]
Words = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Jids = Annotated[Words, AfterValidator(lambda jids: [_jid(jid).bare for jid in jids])]
"""Bare JIDs, also such as a component has."""
AccountJids = Annotated[Words, AfterValidator(lambda jids: [_account(jid) for jid in jids])]
Domains = Annotated[Words, AfterValidator(lambda domains: [_check_domain(domain) for domain in domains])]
Origins = Annotated[Words, AfterValidator(lambda origins: [_check_origin(origin) for origin in origins])]
Networks = Annotated[Words, AfterValidator(lambda networks: [_check_network(network) for network in networks])]
Rate = Annotated[str, AfterValidator(_check_rate)]
LongSecret = Annotated[SecretStr, AfterValidator(_check_secret)]
Listen = Annotated[str, AfterValidator(_check_listen)]
JidText = Annotated[str, AfterValidator(_check_jid)]
Certificates = Annotated[
    Annotated[Path, AfterValidator(_check_certificates)] | None, BeforeValidator(lambda value: value or None)
]
"""A file; None if the setting is empty."""
PathPrefix = Annotated[str, AfterValidator(_check_prefix)]
