"""The parsers with input from hypothesis. `make fuzz` runs them with a fuzzer that sees their branches."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_gallery.http.request import BODY
from tests.attack.targets import FORM, Parsers

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def parsers() -> Iterator[Parsers]:
    parsers = Parsers()
    yield parsers
    parsers.close()


NAMES = ["file", "media_type", "context", "metadata", "size", "hash", "create_thumbnails", "id", "contexts[]", "jid",
         "name", "order_by", "page", "date_gte", "date_lte", "type", "code", "token_id", "value", "vhost",
         "file[]"]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["", "0", "-1", "1e9", "9" * 30, "NaN", "true", "null", "image/png", "audio/ogg+voice", "avatar",
                     "a\0b",
                     "2024-02-30", "9999-12-31T23:59:59+00:01", "0001-01-01", "-created_at", "%", "\ud7ff", "{}", "[]",
                     "a@b/c", "@", "/media/x/y", "http://[::1/media/a/b", "http://x/media/ab/%00", "\u0661"]),
    st.text(max_size=40),
)  # fmt: skip
LINES = st.sampled_from(
    [b"--b\r\n", b"--b--\r\n", b"--b", b"\r\n", b"\n", b"\r", b"--", b"-", b": ", b"\0", b"\xff",
     b'Content-Disposition: form-data; name="file"; filename="a"\r\n',
     b'Content-Disposition: form-data; name="size"\r\n',
     b"Content-Disposition: form-data; name=file; filename*=utf-8''%00%2f\r\n", b"Content-Type: text/html\r\n",
     b'content-disposition: form-data; name="file"; filename="../\\"x"\r\n', b"Content-Length: 9\r\n", b"\r\n\r\n",
     b"12",
     b"Content-Transfer-Encoding: base64\r\n", b'Content-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n']
)  # fmt: skip


@often
@given(st.lists(st.one_of(LINES, st.binary(max_size=30)), max_size=25))
def test_forms_of_anything(parsers: Parsers, lines: list[bytes]) -> None:
    parsers.multipart(b"".join(lines))


@often
@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8), st.binary(max_size=300), VALUES)
def test_forms_that_are_nearly_right(
    parsers: Parsers, fields: list[tuple[str, str]], data: bytes, filename: str
) -> None:
    parts = [(f'name="{name}"', value.encode()) for name, value in fields]
    parts.insert(len(parts) // 2, (f'name="file"; filename="{filename}"', data))
    head = b"--b\r\nContent-Disposition: form-data; "
    parsers.multipart(
        b"".join(head + what.encode() + b"\r\n\r\n" + value + b"\r\n" for what, value in parts) + b"--b--\r\n"
    )


_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="size"\r\n\r\n2\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n\r\n--b--'
)


BITS = ["<request xmlns='urn:xmpp:http:upload:0'", "<request xmlns='urn:xmpp:http:upload'>", " filename='", "'", ">",
        "/>", " size='", "0", "-1", "9" * 400, "<filename>", "</filename>", "<size>5</size>", "</request>", "&#0;",
        "&lt;", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='", "2030-01-01T00:00:00Z", "..",
        " content-type='image/png", "<x/>", "\u202e",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>"]  # fmt: skip


@often
@given(st.lists(st.one_of(st.sampled_from(BITS), st.text(max_size=5)), max_size=12))
def test_stanzas_of_anything(parsers: Parsers, bits: list[str]) -> None:
    inner = "".join(bits).encode("utf-8", "replace")
    parsers.stanzas(b"<iq type='get' from='anna@example.org/x' id='1'>" + inner + b"</iq>")


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n", b"for mail programs of old\r\n"])
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\nfor them, too: --b--\r\n--b\r\n"])
def test_a_form_is_the_same_wherever_it_is_cut(parsers: Parsers, before: bytes, behind: bytes) -> None:
    """What comes before the first boundary and after the last one is ignored (RFC 2046, section 5.1.1)."""
    form = before + _FORM + behind
    cuts = [[form[:at], form[at:]] for at in range(len(form))]
    cuts += [[form[:at], form[at : at + 1], form[at + 1 :]] for at in range(len(form))]
    for pieces in ([form], [bytes([byte]) for byte in form], *cuts):
        data, offer = parsers.upload([piece for piece in pieces if piece])
        assert (data, offer.size, offer.name) == (b"\r\n", 2, "a")


@pytest.mark.parametrize("form", [_FORM[:-1], b"no boundary at all" * 10_000, b"--c\r\n" * 20, b"\r\n--"])
def test_a_form_without_its_boundaries_is_refused(parsers: Parsers, form: bytes) -> None:
    for size in (7, 5000, len(form)):
        assert parsers.upload([form[at : at + size] for at in range(0, len(form), size)]) == 400


@often
@given(st.one_of(st.text(max_size=60), st.text(st.characters(max_codepoint=255)).map(lambda text: f"{FORM}{text}")))
def test_content_types_of_forms(parsers: Parsers, content_type: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    parsers.multipart(body, content_type.encode("latin-1", "replace").decode("latin-1"))


@often
@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5))
def test_pairs(parsers: Parsers, pairs: list[tuple[str, str]]) -> None:
    parsers.parameters("&".join(f"{key}={value}" for key, value in pairs).encode())


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), VALUES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=12,
)


CLAIMS = {"sub": "a@b", "slot": "slot", "filename": "name", "filesize": 5, "filetype": "", "iat": 1, "exp": 2}


@often
@given(st.dictionaries(st.sampled_from([*CLAIMS, "purpose", "expires"]), ANYTHING, max_size=3), st.binary(max_size=40))
def test_permissions_of_anything(parsers: Parsers, other: dict[str, object], data: bytes) -> None:
    parsers.permissions(json.dumps(CLAIMS | other).encode())
    parsers.permissions(data)


@often
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=5))
def test_json(parsers: Parsers, values: dict[str, object]) -> None:
    parsers.parameters(json.dumps(values).encode())


@often
@given(st.binary(max_size=200))
def test_parameters_of_anything(parsers: Parsers, data: bytes) -> None:
    parsers.parameters(data)


@pytest.mark.parametrize(
    "data",
    [b"[" * 60_000, b'{"id":' * 10_000, b'{"id": ' + b"[" * 50_000 + b"]" * 10_000 + b"}",
     b'{"id": ' + b"9" * 60_000 + b"}",
     b'{"name": "\\ud800", "size": 1}', b'{"jid": "a@\\udfff"}', b"\xff" * 1000, b"x" * (BODY + 1), b'{"page": 1e400}',
     b'{"code": ' + b"9" * 5000 + b', "jid": "a@b"}', b"id=" + b"1," * 20_000, b"&" * 60_000, b"id=1&" * 12_000,
     b'{"jid": "' + b"a" * 3000 + b'@b"}', b'{"jid": "a@' + b"b." * 1500 + b'c"}', "{\"jid\": \"ａ@ｂ\"}".encode()],
)  # fmt: skip
def test_parameters_that_are_large_or_strange(parsers: Parsers, data: bytes) -> None:
    parsers.parameters(data)


@often
@given(st.one_of(st.text(max_size=60), st.from_regex(r"[^@/]{1,20}@[^@/]{1,20}(/.{1,10})?", fullmatch=True)))
def test_words(parsers: Parsers, text: str) -> None:
    parsers.words(text.encode("utf-8", "replace"))


@often
@given(st.from_regex(r"bytes ?= ?[-0-9, +_\u0660]{0,30}", fullmatch=True))
def test_ranges(parsers: Parsers, asked: str) -> None:
    parsers.words(asked.encode())


HEADERS = ["accept-language", "authorization", "forwarded", "if-modified-since", "if-none-match", "if-range", "range",
           "x-forwarded-for"]  # fmt: skip
DATES = st.builds(
    "Mon, {} Nov {} {}:00:00 {}".format,
    st.integers(1, 31),
    st.one_of(st.integers(1, 9999), st.integers()),
    st.sampled_from(["00", "23", "24", "9" * 5000]),
    st.one_of(st.from_regex(r"[+-][0-9]{1,30}", fullmatch=True), st.sampled_from(["GMT", "EST", "-0000", "+2400", ""])),
)
WORDS = st.lists(
    st.sampled_from(["Bearer", "bytes", "=", "-", ",", ";", "q=", '"', "W/", "for=", "[::1]", ":80", "127.0.0.1",
                     "::1%1", "*", "9" * 30, "1e999", "nan", "de-AT", "\\", " "]), max_size=12,
).map("".join)  # fmt: skip


@often
@given(st.sampled_from(HEADERS), st.one_of(WORDS, st.text(st.characters(max_codepoint=255), max_size=30)))
def test_heads_of_anything(parsers: Parsers, name: str, value: str) -> None:
    parsers.head(name.encode(), value.encode("latin-1"))


@often
@given(DATES)
def test_dates_of_anything(parsers: Parsers, date: str) -> None:
    for name in (b"if-modified-since", b"if-range"):
        parsers.head(name, date.encode())
