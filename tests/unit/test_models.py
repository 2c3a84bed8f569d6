import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_gallery.errors import BadRequest
from media_gallery.models import AVATAR_SIZES, Digest, Jid, category_of
from media_gallery.names import avatar_thumbnail_name, clean_name, folded, thumbnail_name
from media_gallery.quantities import iso


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna@Example.org", "anna@example.org"),
        ("anna@example.org.", "anna@example.org"),
        ("ｊｕｌｉｅｔ@example.com", "juliet@example.com"),
        ("ä@xn--mller-kva.example", "ä@müller.example"),
        *((f"anna@example.org{dot}", "anna@example.org") for dot in "。．｡"),
        *((f"anna@example{dot}org", "anna@example.org") for dot in "。．｡"),
        ("anna@1２7.0.0.１。", "anna@127.0.0.1"),
    ],
)
def test_two_spellings_are_one_jid(one: str, other: str) -> None:
    assert Jid.parse(one).bare == Jid.parse(other).bare


def test_a_second_preparation_changes_nothing() -> None:
    """For every character that a preparation changes: letters, digits and dots of all cases, widths and scripts."""
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    changed = {c: unicodedata.normalize("NFKC", c).casefold() for c in map(chr, points)}
    changed = {c: plain for c, plain in changed.items() if c != plain or c.isdigit() or c in "。｡"}
    assert set("A。．｡․…⒈٠１²ßſẞǅΣ") <= changed.keys()
    texts = [f"{c}@[::1]" for c in changed]
    # Domains are slow to prepare, so only characters that become ASCII letters, digits or dots are tried.
    texts += [f"a@b{c}" for c, plain in changed.items() if c in "。｡" or set(plain) & {*"19az."}]
    for text in texts:
        with suppress(BadRequest):
            jid = Jid.parse(text)
            assert Jid.parse(str(jid)) == jid and not jid.domain.endswith("."), ascii(text)


@pytest.mark.parametrize(
    ("text", "prepared"), [("anna@[::1]", "anna@[::1]"), ("anna@[2001:DB8:0::1]/x", "anna@[2001:db8::1]/x")]
)
def test_addresses_of_ipv6_stand_in_brackets(text: str, prepared: str) -> None:
    assert str(Jid.parse(text)) == prepared


def test_parts_of_a_jid() -> None:
    jid = Jid.parse("Romeo@Example.net/Orchard at Night")
    assert (jid.local, jid.domain, jid.resource) == ("romeo", "example.net", "Orchard at Night")
    assert jid.bare == "romeo@example.net"
    assert str(jid) == "romeo@example.net/Orchard at Night"
    assert Jid.parse("anna@[2001:DB8::1]").domain == "[2001:db8::1]"


@pytest.mark.parametrize("resource", ["\U0001fae8", "\U00032390", "Téléphone \U0001f600"])  # Unicode 15, 15.1
def test_a_resource_may_have_letters_newer_than_this_python(resource: str) -> None:
    assert Jid.parse(f"anna@example.org/{resource}").resource == resource


@pytest.mark.parametrize("character", ["\u0378", "\U000e0067", "\u200d", "\u0007", "\ue000"])
def test_a_resource_has_no_character_that_rfc_8264_excludes(character: str) -> None:
    with pytest.raises(BadRequest):
        Jid.parse(f"anna@example.org/a{character}b")


@pytest.mark.parametrize(
    "text", ["", "@example.org", "anna@", "a b@example.org", "a@b@example.org", "anna@exa mple.org", "a@example.org/",
             "a'b@example.org", "anna@-example.org", "a" * 1024 + "@example.org", "anna\0@example.org", "анна@[::z]",
             "a@example.org/" + "x" * 1024, "a@example.org/" + "я" * 512, "a@" + "b" * 64, "a@" + "b." * 600 + "c",
             "a@::1", "a@[::1", "a@::1]", "a@[::1]x", "a@[::1].", "a@[::1%1]", "a@::1%1", "a@[::1%\1]", "a@::1%\1",
             "a@[]"]
)  # fmt: skip
def test_what_is_no_jid(text: str) -> None:
    with pytest.raises(BadRequest):
        Jid.parse(text)


@given(st.text())
def test_jid_parsing_never_fails_unexpectedly(text: str) -> None:
    try:
        jid = Jid.parse(text)
    except BadRequest:
        return
    assert Jid.parse(str(jid)) == jid


_MARKS = st.sampled_from(["thumb_", "thumb", "_", "48_", "256_", ".webp", ".png", "я", "x"])


@given(st.lists(_MARKS, min_size=1, max_size=3), st.integers(1, 130), st.sampled_from(["", ".webp", ".png", ".jpg"]))
def test_no_two_of_a_file_and_its_thumbnails_have_one_name(marks: list[str], times: int, ext: str) -> None:
    """Two names are most likely equal if they are built of the marks of thumbnails and cut to full length."""
    name = clean_name("".join(marks) * times + ext)
    made = [thumbnail_name(name), *(avatar_thumbnail_name(size, name, "png") for size in AVATAR_SIZES)]
    assert len({name, *made}) == 1 + len(made)
    assert all(len(one.encode()) <= 255 and clean_name(one) == one for one in made)


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Фото с дачи.jpg", "Фото с дачи.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\anna\\cat.png", "cat.png"),
        ("a\r\nb\0.txt", "ab.txt"),
        ("exe\u202egpj.exe", "exegpj.exe"),
        ("👩‍👩‍👧.png", "👩‍👩‍👧.png"),
        ("\U0001fae8\U000e0067\u00ad.jpg", "\U0001fae8\U000e0067\u00ad.jpg"),  # newer than this Python; a tag; a hyphen
        ("\ufeffa\u200bb\ufffe\ufdd0.txt", "ab.txt"),
        ("", "_"),
        ("..", "_"),
        (".", "_"),
        ("/", "_"),
        (".bashrc", ".bashrc"),
    ],
)
def test_kept_name(given_name: str, kept: str) -> None:
    assert clean_name(given_name) == kept


def test_long_name_keeps_its_extension() -> None:
    kept = clean_name("я" * 300 + ".jpeg")
    assert kept.endswith("я.jpeg")
    assert 250 < len(kept.encode()) <= 255


@given(st.text(max_size=600))
def test_every_name_is_safe(name: str) -> None:
    kept = clean_name(name)
    assert 1 <= len(kept.encode()) <= 255
    assert "/" not in kept and "\0" not in kept and kept not in (".", "..")
    assert not set(kept) & set("\r\n\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean_name(kept) == kept
    for derived in (thumbnail_name(kept), avatar_thumbnail_name(48, kept, "webp")):
        assert len(derived.encode()) <= 255 and derived != kept


def test_thumbnail_names() -> None:
    assert thumbnail_name("photo.jpg") == "thumb_photo.webp"
    assert avatar_thumbnail_name(48, "selfie_avatar.png", "webp") == "48_selfie_avatar.webp"


@given(st.text())
def test_digest_parsing_never_fails_unexpectedly(text: str) -> None:
    assert Digest.parse(text).algorithm in ("sha-1", "sha-256", "other")


@given(st.binary(min_size=32, max_size=32))
def test_digest_by_length(value: bytes) -> None:
    assert Digest.parse(value.hex().upper()) == Digest("sha-256", value.hex())
    assert Digest.parse(value[:20].hex()) == Digest("sha-1", value[:20].hex())
    assert Digest.parse(value[:16].hex()).algorithm == "other"


def test_categories() -> None:
    assert category_of("image/png", "file") == "image"
    assert category_of("image/png", "avatar") == "avatar"
    assert category_of("audio/ogg", "voice") == "voice"
    assert category_of("audio/ogg", "file") == "file"
    assert category_of("video/mp4", "file") == "video"


def test_times() -> None:
    assert iso(1763892000123456) == "2025-11-23T10:00:00.123456Z"
    assert iso(0) == "1970-01-01T00:00:00.000000Z"


def test_folding() -> None:
    assert folded("STRASSE") == folded("straße")
    assert folded("e\u0301") == folded("É")
