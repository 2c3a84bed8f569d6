"""Requests over XMPP are answered a few at a time, in bounded memory, and none delays the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from xml.etree import ElementTree as ET

import pytest

from media_gallery import connection
from tests.unit.test_answers import iq_of
from tests.waiting import DEADLINE


class Stream:
    """A minimal stream: what was sent over it, and how much of that the server has not read."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.others: list[ET.Element] = []
        self.transport, self.unread = self, 0
        self._spawn_event: Callable[[ET.Element], None] = self.others.append

    def get_write_buffer_size(self) -> int:
        return self.unread

    def send_raw(self, answer: str) -> None:
        self.sent += answer.splitlines()


class Answers:
    """Answers that wait until `go` is set."""

    def __init__(self) -> None:
        self.begun, self.go = 0, asyncio.Event()

    async def answer(self, iq: ET.Element) -> str | None:
        self.begun += 1
        await self.go.wait()
        if iq.get("id") == "broken":
            raise RuntimeError
        return f"answered {iq.get('id')}\n"

    def refuse(self, iq: ET.Element) -> str | None:
        return f"refused {iq.get('id')}\n"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits for its test, however long the machine stands still in it."""
    monkeypatch.setattr(connection, "ANSWERED_WITHIN", 10 * DEADLINE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110, nothing else tells when it is true
            await asyncio.sleep(0)


async def test_a_flood_fills_no_memory() -> None:
    stream, answers = Stream(), Answers()
    connection._Answering(answers, stream, lambda: True)
    large = iq_of(f"<x>{'x' * 2**20}</x>")
    for number in range(1000):
        large.set("id", str(number))
        stream._spawn_event(deepcopy(large))
    taken = connection.WAITING // 2**20 - 1
    await until(lambda: stream.sent)
    assert stream.sent == [f"refused {number}" for number in range(taken, 1000)]
    answers.go.set()
    await until(lambda: len(stream.sent) == 1000)
    assert set(stream.sent) >= {f"answered {number}" for number in range(taken)}
    stream._spawn_event(iq_of("<y/>"))  # there is room again
    await until(lambda: "answered i<1" in stream.sent)
    stream.unread = connection.WAITING  # but the server reads nothing
    stream._spawn_event(iq_of("<y/>"))
    await until(lambda: answers.begun == taken + 2)
    for _ in range(5):  # after this it would have been sent
        await asyncio.sleep(0)
    assert len(stream.sent) == 1001


async def test_a_few_are_answered_at_once() -> None:
    stream, answers = Stream(), Answers()
    connection._Answering(answers, stream, lambda: True)
    for _ in range(3 * connection.AT_ONCE):
        stream._spawn_event(iq_of("<x/>"))
    await until(lambda: answers.begun == connection.AT_ONCE)
    for _ in range(connection.AT_ONCE):
        await asyncio.sleep(0)
    assert answers.begun == connection.AT_ONCE and not stream.sent
    answers.go.set()
    await until(lambda: len(stream.sent) == 3 * connection.AT_ONCE)


async def test_an_answer_that_never_comes_or_fails_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, answers = Stream(), Answers()
    connection._Answering(answers, stream, lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "ANSWERED_WITHIN", 0.01)
        for _ in range(3 * connection.AT_ONCE):
            stream._spawn_event(iq_of("<x/>"))
        await until(lambda: len(stream.sent) == 3 * connection.AT_ONCE)
    assert set(stream.sent) == {"refused i<1"}
    answers.go.set()
    for name in ("broken", "whole"):
        iq = iq_of("<x/>")
        iq.set("id", name)
        stream._spawn_event(iq)
    await until(lambda: "answered whole" in stream.sent)
    assert "answered broken" not in stream.sent


async def test_what_comes_while_the_last_one_ends_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "AT_ONCE", 1)
    stream, second = Stream(), iq_of("<y/>")
    second.set("id", "second")

    class Ending(Answers):
        async def answer(self, iq: ET.Element) -> str | None:
            if iq is not second:  # the next one comes before the end of this one is noticed
                asyncio.get_running_loop().call_soon(stream._spawn_event, second)
            return f"answered {iq.get('id')}\n"

    connection._Answering(Ending(), stream, lambda: True)
    stream._spawn_event(iq_of("<x/>"))
    await until(lambda: "answered second" in stream.sent)


async def test_what_asks_nothing_is_not_answered() -> None:
    stream, answers = Stream(), Answers()
    connection._Answering(answers, stream, lambda: True)
    for text in ("<message/>", "<presence/>", "<iq type='result'/>", "<iq type='error'/>", "<iq/>", "<handshake/>"):
        stream._spawn_event(ET.fromstring(f"<a xmlns='jabber:component:accept'>{text}</a>")[0])
    assert [one.tag.partition("}")[2] for one in stream.others] == ["iq", "iq", "iq", "handshake"]
    await asyncio.sleep(0)
    assert not stream.sent and not answers.begun
