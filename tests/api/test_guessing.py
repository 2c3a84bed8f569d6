"""What the default limits do against those who guess one-time codes, or guess to lock somebody out."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from limits import parse_many

from media_gallery.app import Gallery
from media_gallery.db import accounts as queries
from media_gallery.errors import NotFound, Unavailable
from media_gallery.models import Jid
from media_gallery.settings import Settings
from tests.service import RATES, Service, assert_error

MINUTE, DAY = 60, 24 * 60 * 60
NAMES = [f"rate_{name.lower()}" for name in RATES if name.startswith("CODE")]
DEFAULT = {name: str(Settings.model_fields[name].default) for name in NAMES}
TRIES = int(Settings.model_fields["code_tries"].default)
PAUSE = int(Settings.model_fields["code_pause"].default)


def most(rate: str, seconds: int) -> int:
    """How many events the default rate allows in this time."""
    return min(item.amount * max(1, seconds // item.get_expiry()) for item in parse_many(DEFAULT[f"rate_{rate}"]))


class World:
    """A service with the default limits, and clients at many addresses."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._numbers = count(1)

    def address(self) -> str:
        """A new address that nobody has used."""
        number = next(self._numbers)
        return f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"

    def post(self, path: str, address: str, token: str = "", **body: Any) -> Any:
        headers = {"X-Forwarded-For": address} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.service.http.post(f"/api/v1/account/{path}/", json=body, headers=headers)

    def ask(self, jid: str, address: str, token: str = "") -> int:
        return int(self.post("xmpp_code_request", address, token, jid=jid).status_code)

    def attempt(self, jid: str, address: str, code: str = "wrong") -> int:
        """Try a code. The default can never be right; a number sometimes would be, and the test would fail."""
        return int(self.post("xmpp_auth", address, jid=jid, code=code).status_code)

    def codes(self, jid: str) -> list[str]:
        """The codes that the courier has sent to a JID."""
        lines = [line for line in self.service.log_lines() if "DEVELOPMENT MODE" in line["event"]]
        return [line["code"] for line in lines if line.get("jid") == jid]

    def tries(self) -> dict[int, tuple[str, int]]:
        """For each stored code, by its number: the JID, and how many wrong tries there were."""
        rows = self.service.within(lambda g: g.db.read(lambda c: c.all("SELECT id, jid, tries FROM codes")))
        return {row[0]: (row[1], row[2]) for row in rows}

    def let_pass(self, seconds: int) -> None:
        """Make everything that is stored older by these seconds."""
        with sqlite3.connect(self.service.data_dir / "rates.sqlite", timeout=10) as rates:
            rates.execute("UPDATE rates SET expires = expires - ?", (seconds,))
        move = "UPDATE codes SET expires = expires - $1"
        self.service.within(lambda g: g.db.write(lambda c: c.run(move, seconds * 1_000_000)))


@pytest.fixture(scope="module")
def world(start_service: Callable[..., Service]) -> World:
    return World(start_service(**{name.upper(): rate for name, rate in DEFAULT.items()}, CODE_PAUSE=PAUSE))


def someone() -> str:
    return f"victim-{uuid4().hex[:12]}@example.org"


def test_guessers_at_many_addresses_get_a_limited_number_of_tries_a_day(world: World) -> None:
    """Each request has its own address. Tries come from these addresses, which may try more often, and from another."""
    jid, seen, asked, let_in = someone(), dict[Any, int](), Counter[int](), Counter[int]()
    for pause in [10 * MINUTE] * 6 + [DAY - 60 * MINUTE]:
        guessers = [world.address() for _ in range(7)]
        for guesser in guessers:
            asked[world.ask(jid, guesser)] += 1
        with ThreadPoolExecutor(4) as pool:  # at once, so that no try sees the result of another
            tries = pool.map(lambda address: world.attempt(jid, address), guessers * 2 + [world.address()])
            let_in.update(tries)
        seen |= {number: tries for number, (owner, tries) in world.tries().items() if owner == jid}
        world.let_pass(pause)
    assert asked[201] == len(world.codes(jid)) == len(seen) == most("code_request_jid", DAY)
    assert max(seen.values()) == TRIES
    assert sum(seen.values()) == most("code_request_jid", DAY) * TRIES  # the documented odds use this number
    assert set(let_in) <= {404, 429}
    world.let_pass(DAY)
    assert world.ask(jid, world.address()) == 201  # on the next day codes are sent again


def test_the_documented_odds_follow_from_the_default_limits() -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    told = {
        row[0]: (int(row[1]), int(row[2])) for row in re.findall(r"^\| (at .+) \| (\d+) \| 1 in (\d+) \|$", page, re.M)
    }
    guesses = {
        "at one JID, from everywhere": most("code_request_jid", DAY) * TRIES,
        "at one JID, from one address": most("code_request_jid_address", DAY) * TRIES,
        "at any JIDs, from one address": most("code_request_address", DAY) * TRIES,
    }
    chances = {where: 1 - (1 - 1 / 10**6) ** number for where, number in guesses.items()}
    assert told == {where: (number, round(1 / chances[where], -2)) for where, number in guesses.items()}
    year = 1 - (1 - chances["at one JID, from everywhere"]) ** 365
    assert f"a chance of {year:.1%}".replace("%", " %") in page
    assert f"gets {most('code_request_jid', DAY)} codes every day" in page


def test_guessing_from_one_address(world: World) -> None:
    address = world.address()
    asked: Counter[int] = Counter()
    let_in: Counter[int] = Counter()
    for window in range(1, 7):
        while asked[429] < window:
            asked[world.ask(someone(), address)] += 1
        while let_in[429] < window:
            let_in[world.attempt(someone(), address)] += 1
        world.let_pass(10 * MINUTE)
    assert asked[201] == most("code_request_address", DAY)
    assert let_in[404] == most("code_try_address", DAY)
    assert set(asked) == {201, 429} and set(let_in) == {404, 429}


def test_a_flood_of_requests_reaches_a_jid_no_oftener_than_its_limit(world: World) -> None:
    jid = someone()
    asked = Counter(world.ask(jid, world.address()) for _ in range(30))
    assert asked == {201: most("code_request_jid", 10 * MINUTE), 429: 30 - most("code_request_jid", 10 * MINUTE)}
    assert len(world.codes(jid)) == asked[201]
    for _ in range(3):
        world.let_pass(10 * MINUTE)
        asked.update(world.ask(jid, world.address()) for _ in range(10))
    assert asked[201] == len(world.codes(jid)) == most("code_request_jid", DAY)


def test_wrong_tries_of_others_keep_nobody_out(world: World) -> None:
    """They are free, and the owner does not see them, so they must not harm the owner."""
    jid, home = someone(), world.address()
    tries = [world.attempt(jid, world.address()) for _ in range(most("code_try_jid", 10 * MINUTE) + 1)]
    assert tries[-1] == 429
    assert world.ask(jid, home) == 201
    world.let_pass(9 * MINUTE)
    for _ in range(2 * TRIES):
        world.attempt(jid, world.address())
    [code] = world.codes(jid)
    assert world.attempt(jid, home, code) == 201


def test_others_have_few_tries_at_a_code_that_they_have_not_asked_for(world: World) -> None:
    jid = someone()
    world.ask(jid, world.address())
    [code] = world.codes(jid)
    for _ in range(TRIES * 2 // 5):
        assert world.attempt(jid, world.address()) == 404
    assert world.attempt(jid, world.address(), code) == 404


def test_a_code_may_be_used_at_another_address_than_it_was_asked_for_at(world: World) -> None:
    jid = someone()
    world.ask(jid, world.address())
    assert world.attempt(jid, world.address(), *world.codes(jid)) == 201


def test_a_flood_of_requests_keeps_nobody_out_at_addresses_of_earlier_sign_ins(world: World) -> None:
    jid, home = someone(), world.address()
    world.ask(jid, home)
    assert world.attempt(jid, home, *world.codes(jid)) == 201
    world.let_pass(30 * DAY)
    for _ in range(3):
        for _ in range(most("code_request_jid", 10 * MINUTE) + 1):
            world.ask(jid, world.address())
        world.let_pass(10 * MINUTE)
    assert world.ask(jid, world.address()) == 429
    assert world.ask(jid, home) == 201
    assert world.attempt(jid, home, world.codes(jid)[-1]) == 201
    asked = Counter(world.ask(jid, home) for _ in range(20))
    assert asked[201] == most("code_request_jid", 10 * MINUTE) - 1


def test_one_address_cannot_use_up_the_codes_of_a_jid(world: World) -> None:
    jid, stranger, owner = someone(), world.address(), world.address()
    for window in range(4):
        asked = Counter(world.ask(jid, stranger) for _ in range(20))
        left = most("code_request_jid_address", DAY) - window * most("code_request_jid_address", 10 * MINUTE)
        assert asked[201] == min(most("code_request_jid_address", 10 * MINUTE), max(0, left)) and asked[429]
        assert world.ask(jid, owner) == 201
        world.let_pass(10 * MINUTE)


def test_who_has_a_token_is_never_kept_out(world: World) -> None:
    jid, address = someone(), world.address()
    token, other = world.service.user(jid=jid).token, world.service.user().token
    while world.ask(jid, world.address()) == 201:
        pass
    while world.ask(someone(), address) == 201:
        pass
    for strange in ("", other, "wrong"):
        assert world.ask(jid, address, strange) == 429
    asked = Counter(world.ask(jid, address, token) for _ in range(10))
    assert asked == {201: most("code_request_jid", 10 * MINUTE), 429: 10 - most("code_request_jid", 10 * MINUTE)}
    assert world.ask(someone(), world.address(), "wrong") == 201


def test_the_pause_doubles_with_each_code_that_was_made_void(world: World) -> None:
    jid, guesser = someone(), world.address()
    for pause in (PAUSE, 2 * PAUSE, 4 * PAUSE):
        assert world.ask(jid, guesser) == 201
        for _ in range(TRIES):
            begun = time.time()
            assert world.attempt(jid, guesser) == 404
        answer = world.post("xmpp_code_request", guesser, jid=jid)
        assert_error(answer, 429)
        passed = time.time() - begun  # since before the last try, which began the pause
        assert pause - passed < int(answer.headers["Retry-After"]) <= pause + 1
        assert world.ask(someone(), guesser) == 201
        world.let_pass(max(pause, 5 * MINUTE))
    assert world.ask(jid, world.address()) == 201


def test_what_could_not_be_done_counts_for_no_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither codes that the XMPP server did not take, nor tries that never reached the database."""
    jid, address = Jid.parse(someone()), world.address()

    class Away:
        jid = "gallery.example.org"

        async def check(self) -> None: ...

        async def send(self, stanza: str) -> None:
            raise Unavailable

    async def nothing(*_: Any) -> Any:
        raise Unavailable

    async def outage(gallery: Gallery) -> None:
        monkeypatch.setattr(gallery.accounts, "courier", Away())
        monkeypatch.setattr(queries, "take_code", nothing)
        for _ in range(most("code_request_address", 10 * MINUTE) + 1):
            with pytest.raises(Unavailable):
                await gallery.accounts.request_code(jid, "message", "en", address)
        for _ in range(most("code_try_jid", 10 * MINUTE) + 1):
            with pytest.raises(Unavailable):
                await gallery.accounts.sign_in(jid, "000000", "", "", address)

    world.service.within(outage)
    assert not world.codes(jid.bare)
    asked = Counter(world.ask(jid.bare, address) for _ in range(10))
    assert asked[201] == most("code_request_jid_address", 10 * MINUTE)
    assert world.ask(someone(), address) == 201
    tried = Counter(world.attempt(jid.bare, address) for _ in range(20))
    assert tried[404] == most("code_try_jid", 10 * MINUTE)


def test_who_asked_for_a_code_learns_how_many_tries_are_left(world: World) -> None:
    jid, address = someone(), world.address()
    assert "details" not in world.post("xmpp_auth", address, jid=jid, code="wrong").json()  # there is no code yet
    assert world.ask(jid, address) == 201
    assert "details" not in world.post("xmpp_auth", world.address(), jid=jid, code="wrong").json()  # a stranger's try
    for left in range(TRIES - 2, -1, -1):
        body = assert_error(world.post("xmpp_auth", address, jid=jid, code="wrong"), 404)
        assert body["details"] == {"tries_left": left}
    assert "details" not in world.post("xmpp_auth", address, jid=jid, code="wrong").json()  # the code is void


def test_a_void_code_stays_void_when_another_is_used(world: World) -> None:
    jid, home, elsewhere = someone(), world.address(), world.address()
    world.ask(jid, home)
    [void] = world.codes(jid)
    for _ in range(TRIES):
        assert world.attempt(jid, home) == 404
    assert world.ask(jid, elsewhere) == 201
    assert world.attempt(jid, elsewhere, world.codes(jid)[1]) == 201
    assert world.attempt(jid, home, void) == 404


def test_no_answer_shows_whether_a_jid_is_known(world: World) -> None:
    """The answers are equal, word by word, up to the limit, whether the JID has an account, a code or neither."""

    def answers(jid: str) -> list[tuple[int, str, list[str]]]:
        given = [world.post("xmpp_auth", world.address(), jid=jid, code="000000x") for _ in range(20)]
        given += [world.post("xmpp_code_request", world.address(), jid=jid) for _ in range(8)]
        return [
            (answer.status_code, re.sub(r'"request_id":"[^"]+"', "", answer.text), sorted(answer.headers))
            for answer in given
        ]

    member, asked, nobody = someone(), someone(), someone()
    world.service.user(jid=member)
    world.ask(asked, world.address())
    told = answers(member)
    assert {status for status, _, _ in told} == {404, 429, 201}
    assert answers(nobody) == told
    assert answers(asked)[:20] == told[:20]
    member = someone()
    world.service.user(jid=member)
    refusals = []
    for jid in (member, someone()):
        body = {"jid": jid, "code": "000000x"}
        refusals.append(assert_error(world.service.http.request("DELETE", "/api/v1/account/", json=body), 404))
    assert refusals[0] == refusals[1]


def test_a_try_takes_the_same_work_for_every_jid(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow hash is most of the work and comes before any query, so the time does not show if an account exists."""
    done: list[str] = []
    monkeypatch.setattr("media_gallery.accounts.hashlib.scrypt", recorded(hashlib.scrypt, done))
    monkeypatch.setattr(queries, "take_code", recorded(queries.take_code, done))
    member, asked, nobody = someone(), someone(), someone()
    world.service.user(jid=member)
    world.ask(asked, world.address())
    for jid in (member, asked, nobody):
        done.clear()
        with pytest.raises(NotFound):
            world.service.within(lambda g: g.accounts.sign_in(Jid.parse(jid), "wrong", "", "", world.address()))  # noqa: B023
        assert done == ["scrypt", "take_code"]


def recorded(query: Callable[..., Any], done: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        done.append(query.__name__)
        return query(*args, **named)

    return call


def test_a_deleted_account_leaves_no_known_address(world: World) -> None:
    jid, home = someone(), world.address()
    assert world.ask(jid, home) == 201
    token = world.post("xmpp_auth", home, jid=jid, code=world.codes(jid)[-1]).json()["token"]
    while world.ask(jid, world.address()) == 201:
        pass  # until strangers are refused
    assert world.ask(jid, home) == 201
    deleted = world.service.http.delete("/api/v1/account/", headers={"Authorization": f"Bearer {token}"})
    assert deleted.status_code == 204
    assert world.ask(jid, home) == 429
