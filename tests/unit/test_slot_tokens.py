"""The token of a slot: it says what was signed, for one address and a limited time."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_gallery import slot_tokens
from media_gallery.app import assemble
from media_gallery.errors import Forbidden
from media_gallery.settings import Settings
from media_gallery.slot_tokens import PURPOSES, VALID, Claims, sign, verify
from tests.service import empty_database

SECRET = "a secret of thirty-two characters"
SLOT, NAME, NOW = "b1c7f5f4a3d24f6c8a5e9d0c1b2a3f4e", "très cool.png", 1_800_000_000
SAID: dict[str, Any] = {"sub": "romeo@example.org", "slot": SLOT, "filename": NAME, "filesize": 4096,
                        "filetype": "image/png", "iat": NOW, "exp": NOW + VALID}  # fmt: skip


def coded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def made(said: object = SAID, header: object = {"alg": "HS256", "typ": "JWT"}, secret: str = SECRET) -> str:
    """A token with a valid signature and any claims."""
    parts = ".".join(coded(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, said))
    return f"{parts}.{coded(hmac.digest(secret.encode(), parts.encode(), 'sha256'))}"


def refused(token: str, slot: str = SLOT, name: str = NAME, now: int = NOW, secret: str = SECRET) -> None:
    with pytest.raises(Forbidden):
        verify(secret, token, slot, name, now)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of RFC 7515, appendix A.1."""
    key = urlsafe_b64decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==")
    header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    said = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    assert slot_tokens._signature(key, f"{header}.{said}") == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@given(
    st.builds(
        Claims,
        sub=st.text(min_size=1),
        slot=st.from_regex(r"[A-Za-z0-9_-]{22,64}", fullmatch=True),
        filename=st.text(min_size=1),
        filesize=st.integers(1, 2**63 - 1),
        filetype=st.text(),
        iat=st.integers(0, 2**40),
        exp=st.integers(1, 2**40),
        expires=st.none() | st.integers(0, 2**40),
        purpose=st.sampled_from(PURPOSES),
    )
)
def test_a_token_says_what_was_signed(claims: Claims) -> None:
    token = sign(SECRET, claims)
    if len(token) <= 8192:
        assert verify(SECRET, token, claims.slot, claims.filename, claims.exp - 1) == claims


def test_a_token_as_prosody_makes_it() -> None:
    """With exactly its claims, in any order, with and without an expiry of the file."""
    assert msgspec.to_builtins(verify(SECRET, made(), SLOT, NAME, NOW)) == SAID
    for more in ({"expires": NOW + 86400}, {"filetype": ""}, {"aud": "somebody", "nbf": 5}):
        claims = verify(SECRET, made(dict(reversed((SAID | more).items()))), SLOT, NAME, NOW)
        assert (claims.sub, claims.expires) == ("romeo@example.org", more.get("expires"))
    assert json.loads(urlsafe_b64decode(sign(SECRET, Claims(**SAID)).split(".")[1] + "==")) == SAID


def test_it_is_valid_until_it_expires() -> None:
    verify(SECRET, made(), SLOT, NAME, NOW + VALID - 1)
    verify(SECRET, made(), SLOT, NAME, NOW - 60)  # the clock of the signing host may differ
    for late in (VALID, VALID + 1, 10**9):
        refused(made(), now=NOW + late)


def test_it_is_for_one_address() -> None:
    for slot, name in ((SLOT[:-1] + "f", NAME), (SLOT, "other.png"), ("", NAME), (SLOT, ""), (NAME, SLOT)):
        refused(made(), slot, name)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"alg": ""}, {"alg": None}, {"alg": ["HS256"]}, {"typ": "JWT"},
        {"alg": "hs256"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": coded(SECRET.encode())}}, {"alg": "HS256", "kid": "../../dev/null"},
        {"alg": "HS256", "jku": "https://example.org/keys"}, {"alg": "HS256", "zip": "DEF"}, {}, [], None, b"", b"\xff",
    ],
)  # fmt: skip
def test_its_header_does_not_choose_how_it_is_verified(header: object) -> None:
    refused(made(header=header))


def test_a_token_without_a_signature_is_forged() -> None:
    for header in ({"alg": "none"}, {"alg": "HS256"}):
        parts = [coded(json.dumps(part).encode()) for part in (header, SAID)]
        for token in (".".join(parts), ".".join([*parts, ""]), ".".join([*parts, coded(b"\0" * 32)])):
            refused(token)


def test_a_token_of_another_secret_is_forged() -> None:
    for secret in ("", " ", SECRET + " ", SECRET.upper(), SLOT):
        refused(made(secret=secret))
        refused(made(), secret=secret + "x")


@pytest.mark.parametrize("claim", list(SAID))
def test_each_claim_is_needed_and_is_what_it_must_be(claim: str) -> None:
    refused(made({name: value for name, value in SAID.items() if name != claim}))
    others: list[Any] = [None, True, [], {}, 1.5, -1, 2**63, float("inf")]
    others += ["1"] if isinstance(SAID[claim], int) else [5]
    others += [0] if claim == "filesize" else []
    for other in others:
        refused(made(SAID | {claim: other}))


@pytest.mark.parametrize("slot", ["", "short", "../../../../etc/passwd-and-more", "a" * 65, f"{SLOT}\n", "é" * 30])
def test_a_slot_is_what_an_address_may_hold(slot: str) -> None:
    refused(made(SAID | {"slot": slot}), slot)


@given(st.text() | st.binary().map(coded), st.integers(0, 400), st.characters(codec="utf-8"))
def test_every_change_is_noticed(text: str, place: int, character: str) -> None:
    refused(text)
    token = made()
    place %= len(token)
    changed = token[:place] + character + token[place + 1 :]
    if changed != token:
        refused(changed)
    for other in (token[:place], token + character, token + "=", f" {token}", f"{token}\n", f"{token}.{text}"):
        refused(other)


def test_malformed_claims_are_refused() -> None:
    for said in (b"", b"\xff", b"null", b"[]", b"5", b'{"sub":', b"[" * 2000):
        refused(made(said))
    refused("a" * 10**6)
    refused(made(SAID | {"filename": "n" * 10**5}), name="n" * 10**5)


async def test_all_hosts_sign_with_one_secret(tmp_path: Path) -> None:
    """All hosts use the same database. The first one that needs a secret makes it."""
    settings = Settings(data_dir=tmp_path)
    (tmp_path / settings.database_path.name).write_bytes(empty_database().read_bytes())
    hosts = [assemble(settings) for _ in range(2)]
    for host in hosts:
        await host.db.start()
    try:
        now = hosts[0].clock() // 1_000_000
        said = Claims(**SAID | {"iat": now, "exp": now + VALID, "purpose": "profile"})
        token = await hosts[0].slots.tokens.sign(said)
        assert await hosts[1].slots.tokens.verify(token, SLOT, NAME) == said
        shared = assemble(Settings(data_dir=tmp_path, slot_secret=SECRET)).slots.tokens
        with pytest.raises(Forbidden):
            await shared.verify(token, SLOT, NAME)
        assert verify(SECRET, await shared.sign(said), SLOT, NAME, now) == said
    finally:
        for host in hosts:
            await host.db.close()
            await host.rates.close()
