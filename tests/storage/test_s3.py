"""Files in a bucket: how clients get them, and what happens if the store fails."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from media_gallery.settings import Settings
from media_gallery.storage import make_store
from media_gallery.storage.s3 import PART
from media_gallery.storage.staging import BATCH
from tests import s3, samples
from tests.s3 import BUCKET, KEY, S3, SECRET
from tests.service import MIB, PATIENCE, Service, User, anyone, assert_error
from tests.storage.conftest import LIMITS, TIMEOUT
from tests.tcp import Way


@pytest.fixture(scope="module")
def through(bucket: S3, start_service: Callable[..., Service]) -> Service:
    return start_service(**bucket.settings(), **LIMITS)


@pytest.fixture(scope="module")
def redirecting(bucket: S3, start_service: Callable[..., Service]) -> Service:
    return start_service(**bucket.settings(), S3_DELIVERY="redirect", S3_URL_LIFETIME="100 s")


# --- Delivery ---


def test_files_come_through_the_service_with_ranges(through: Service) -> None:
    user, data = through.user(), os.urandom(3 * MIB)
    file = user.upload(data, "film.bin")
    whole = user.http.get(file["file"])
    assert whole.content == data and whole.headers["ETag"] == f'"{file["hashes"]["sha-256"]}"'
    for start, end in ((0, 10), (MIB, 2 * MIB), (3 * MIB - 5, 3 * MIB)):
        part = user.http.get(file["file"], headers={"Range": f"bytes={start}-{end - 1}"})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert user.http.get(file["file"], headers={"Range": "bytes=99999999-"}).status_code == 416
    assert user.http.head(file["file"]).headers["Content-Length"] == str(len(data))
    assert user.http.get(user.upload(b"", "empty")["file"]).content == b""


def test_a_redirect_leads_to_the_bytes_with_our_headers(redirecting: Service) -> None:
    user, data = redirecting.user(), samples.picture("jpeg")
    file = user.upload(data, 'ein "Büro".jpg')
    answer = anyone.get(file["file"])
    assert answer.status_code == 302 and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, max-age=50"
    address = answer.headers["Location"]
    assert SECRET not in address and user.token not in address
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["100"]
    followed = anyone.get(file["file"], follow_redirects=True)
    assert followed.content == data and followed.headers["Content-Type"] == "image/jpeg"
    whole = user.http.head(file["file"])
    assert whole.status_code == 200 and int(whole.headers["Content-Length"]) == len(data)
    assert followed.headers["Content-Disposition"] == whole.headers["Content-Disposition"]
    part = anyone.get(file["file"], headers={"Range": "bytes=5-9"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, data[5:10])
    assert anyone.get(file["file"], headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert anyone.get(file["thumbnail"]["url"]).status_code == 200
    assert anyone.put(address, content=b"other").status_code == 403  # it allows only reading
    assert anyone.get(address.replace("image%2Fjpeg", "text%2Fhtml")).status_code == 403
    user.delete("files/", id=file["id"])
    assert_error(anyone.get(file["file"]), 404)
    assert anyone.get(address).status_code == 404


def test_a_redirect_leads_to_the_address_that_clients_know(
    bucket: S3, way: Way, start_service: Callable[..., Service]
) -> None:
    public = f"http://localhost:{way.port}"
    service = start_service(**bucket.settings(), S3_DELIVERY="redirect", S3_PUBLIC_ENDPOINT=public)
    user, data = service.user(), os.urandom(1000)
    file = user.upload(data)
    assert way.sent == 0
    answer = anyone.get(file["file"])
    assert answer.headers["Location"].startswith(f"{public}/{BUCKET}/")
    assert anyone.get(answer.headers["Location"]).content == data and way.sent > 0


@pytest.fixture
def temporary_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for a program that gives AWS tools the store's keys. It says in how many minutes the keys expire.

    If there is no file, the program waits for one.
    """
    program, config, minutes = tmp_path / "keys", tmp_path / "config", tmp_path / "minutes"
    end = "(datetime.now(UTC) + timedelta(minutes=float(open(sys.argv[1]).read()))).isoformat()"
    program.write_text(
        "import json, os, sys, time\nfrom datetime import UTC, datetime, timedelta\n"
        "while not os.path.exists(sys.argv[1]):\n    time.sleep(0.01)\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId='{KEY}', SecretAccessKey='{SECRET}', Expiration={end})))\n"
    )
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program} {minutes}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return minutes


def test_a_redirect_ends_with_the_keys_that_signed_it(
    bucket: S3, temporary_keys: Path, start_service: Callable[..., Service]
) -> None:
    temporary_keys.write_text("20")
    settings = bucket.settings() | {"S3_ACCESS_KEY_ID": "", "S3_SECRET_ACCESS_KEY": ""}
    service = start_service(**settings, S3_DELIVERY="redirect", S3_URL_LIFETIME="12 h")
    file = service.user().upload(b"data")
    answer = anyone.get(file["file"])
    [seconds] = parse_qs(urlsplit(answer.headers["Location"]).query)["X-Amz-Expires"]
    kept = int(answer.headers["Cache-Control"].removeprefix("private, max-age="))
    assert 600 < int(seconds) <= 1200 and kept <= int(seconds) / 2
    assert anyone.get(answer.headers["Location"]).content == b"data"


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text at once, so that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_asking_for_keys_delays_nothing_else(
    bucket: S3, temporary_keys: Path, start_service: Callable[..., Service]
) -> None:
    temporary_keys.write_text("1")  # they expire so soon that each redirect asks for new ones
    settings = bucket.settings() | {"S3_ACCESS_KEY_ID": "", "S3_SECRET_ACCESS_KEY": ""}
    service = start_service(**settings, S3_DELIVERY="redirect")
    file = service.user().upload(b"data")
    temporary_keys.unlink()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(anyone.get, file["file"], timeout=PATIENCE)
        for _ in range(10):
            assert service.http.get("/healthz").status_code == 200
        assert not asked.done()
        replace_text(temporary_keys, "1")
        assert asked.result().status_code == 302
    replace_text(temporary_keys, "none")
    assert_error(anyone.get(file["file"]), 503)


def test_two_links_of_the_same_bytes_keep_their_types_and_names(redirecting: Service) -> None:
    user, data = redirecting.user(), os.urandom(500)
    one, two = user.upload(data, "a.pdf", "application/pdf"), user.upload(data, "b.csv", "text/csv")
    for file, media_type in ((one, "application/pdf"), (two, "text/csv")):
        answer = anyone.get(file["file"], follow_redirects=True)
        assert answer.headers["Content-Type"] == media_type and answer.content == data
        assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{file["name"]}"')


# --- What is sent there ---


def test_known_bytes_and_the_originals_of_avatars_are_not_sent(way: Way, distant: Service) -> None:
    user, data = distant.user(), os.urandom(5 * MIB)
    user.upload(data)
    sent = way.sent
    distant.user().upload(data)
    assert way.sent - sent < MIB
    original = samples.picture("png", 900, 700)
    avatar = user.avatar(original)
    assert user.http.get(avatar["file"]).content != original
    assert len([name for name in s3.objects(distant.settings) if name.startswith("blobs/")]) == 2


def test_the_unfinished_upload_of_a_killed_sender_is_removed(through: Service) -> None:
    client = s3.client(through.settings["S3_ENDPOINT"])
    prefix = through.settings["STORAGE_URL"].removeprefix(f"s3://{BUCKET}/")
    key = f"{prefix}/blobs/{'ab' * 16}"
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * PART)

    def unfinished() -> list[Any]:
        return list(client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", []))

    through.cli("gc")
    assert len(unfinished()) == 1  # its sender may still run
    through.stop()
    through.cli("gc", "--older-than", "0")
    through.start()
    assert unfinished() == []


def test_gc_and_fsck_look_into_the_bucket(bucket: S3, start_service: Callable[..., Service]) -> None:
    service = start_service(**bucket.settings())
    user, client = service.user(), s3.client(bucket.endpoint)
    lost, damaged, kept = (user.upload(os.urandom(1000), f"{n}.bin") for n in range(3))
    names = {user.http.get(file["file"]).content: file for file in (lost, damaged, kept)}
    prefix = service.settings["STORAGE_URL"].removeprefix(f"s3://{BUCKET}/")
    for name in s3.objects(service.settings):
        place = {"Bucket": BUCKET, "Key": f"{prefix}/{name}"}
        file = names[client.get_object(**place)["Body"].read()]
        if file is lost:
            client.delete_object(**place)
        if file is damaged:
            client.put_object(**place, Body=b"short")
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/blobs/{'cd' * 16}", Body=b"orphan")
    found = service.cli("fsck", "--repair", code=1)
    assert "lost" in found and "damaged" in found and ", 2 wrong" in found
    service.stop()
    service.cli("gc", "--older-than", "0")
    service.start()
    assert len(s3.objects(service.settings)) == 2
    assert_error(user.http.get(lost["file"]), 404)
    assert len(user.http.get(kept["file"]).content) == 1000


# --- If the store fails ---


def nothing_is_left(service: Service, user: User) -> None:
    assert not list((service.data_dir / "staging").iterdir())
    assert user.used() == 0 and user.items() == []


@pytest.mark.parametrize("size", [1000, 2 * PART])
def test_a_store_that_is_gone(bucket: S3, distant: Service, size: int) -> None:
    user = distant.user()
    file = distant.user().upload(os.urandom(size))
    bucket.pause()
    assert_error(user.send(os.urandom(size)), 503)
    assert_error(user.http.get(file["file"]), 503)
    assert distant.http.get("/readyz").status_code == 503
    assert user.get("files/").status_code == 200
    nothing_is_left(distant, user)
    bucket.resume()
    assert distant.http.get("/readyz").status_code == 200
    assert len(user.http.get(file["file"]).content) == size
    assert len(user.http.get(user.upload(os.urandom(size))["file"]).content) == size


def taken(service: Service, user: User, data: bytes) -> dict[str, Any]:
    """Upload, again and again until the store does not pause."""
    answers: list[httpx.Response] = []

    def sent() -> bool:
        answers.append(user.send(data))
        return answers[-1].status_code == 201

    service.wait_until(sent)
    return dict(answers[-1].json())


def test_a_store_that_hangs(bucket: S3, shaky: Service) -> None:
    user = shaky.user()
    file = taken(shaky, user, b"here")
    with bucket.hanging():
        assert_error(shaky.user().send(os.urandom(2000)), 503)
        assert_error(user.http.get(file["file"]), 503)
        assert user.items()[0]["id"] == file["id"]
    taken(shaky, user, b"again")
    shaky.wait_until(lambda: user.http.get(file["file"]).content == b"here")


def test_a_store_that_is_full(bucket: S3, distant: Service) -> None:
    user, file = distant.user(), distant.user().upload(b"here before")
    bucket.set_quota(1)
    try:
        distant.wait_until(lambda: user.send(os.urandom(1000)).status_code == 507)
        for kept in user.everything():  # files that were taken before the store noticed its limit
            user.delete("files/", id=kept["id"])
        assert_error(user.send(os.urandom(2 * PART)), 507)
        assert user.http.get(file["file"]).content == b"here before"
        nothing_is_left(distant, user)
    finally:
        bucket.set_quota(None)
    distant.wait_until(lambda: user.send(b"again").status_code == 201)


def test_connections_cut_in_the_middle_of_a_part(way: Way, distant: Service) -> None:
    user = distant.user()
    way.cut_after = PART // 2
    assert_error(user.send(os.urandom(3 * PART)), 503)
    nothing_is_left(distant, user)
    way.cut_after = None
    data = os.urandom(3 * PART)
    assert user.http.get(user.upload(data)["file"]).content == data
    distant.stop()
    distant.cli("gc", "--older-than", "0")
    assert len(s3.objects(distant.settings)) == 1


def test_a_download_that_the_store_cuts_is_cut(way: Way, distant: Service) -> None:
    user, data = distant.user(), os.urandom(9 * MIB)
    file = user.upload(data)
    way.cut_back_after = 3 * MIB  # it goes on where it stopped, as often as a request may be repeated
    assert user.http.get(file["file"]).content == data
    way.cut_back_after = MIB
    with pytest.raises(httpx.RemoteProtocolError):
        user.http.get(file["file"])
    assert any(line["event"] == "answer cut short" for line in distant.log_lines()) and "Traceback" not in distant.log()
    way.cut_back_after = None
    assert user.http.get(file["file"]).content == data


@pytest.mark.parametrize("size", [PART - 1, PART + 1])
def test_a_slow_store_is_waited_for(way: Way, shaky: Service, size: int) -> None:
    """Sending a part takes longer than the store may pause, but bytes move all the time."""
    user, data = shaky.user(), os.urandom(size)
    way.delay = 1.3 * TIMEOUT / (size // 65536)
    file = taken(shaky, user, data)
    way.delay = 0.0
    shaky.wait_until(lambda: user.http.get(file["file"]).content == data)


def test_a_bucket_or_a_prefix_that_is_mistyped(bucket: S3, start_service: Callable[..., Service]) -> None:
    service = start_service(**bucket.settings())
    user = service.user()
    file = user.upload(os.urandom(1000))
    service.stop()
    right, wrong = service.settings["STORAGE_URL"], f"s3://{BUCKET}-mistyped/files"
    service.settings["STORAGE_URL"] = wrong
    service.start()
    assert_error(service.http.get("/readyz"), 503)
    assert_error(user.send(b"small"), 503)
    assert_error(user.send(os.urandom(PART + 1)), 503)
    assert_error(user.http.get(file["file"]), 503)
    assert "no such bucket" in service.cli("fsck", code=1)
    for url in (wrong, f"{right}-mistyped"):
        service.cli("fsck", "--repair", code=1, STORAGE_URL=url)
        assert [kept["id"] for kept in user.items()] == [file["id"]]
    assert "0 wrong" in service.cli("fsck", STORAGE_URL=right)


def test_keys_that_the_store_does_not_know(bucket: S3, start_service: Callable[..., Service]) -> None:
    service = start_service(**bucket.settings() | {"S3_SECRET_ACCESS_KEY": "wrong-secret"})
    assert service.http.get("/readyz").status_code == 503
    assert_error(service.user().send(b"data"), 503)
    assert KEY not in service.log() and "wrong-secret" not in service.log()


@pytest.mark.asyncio(loop_scope="function")  # tasks that other tests have left are none of this loop's
@pytest.mark.parametrize("cut", [False, True])
async def test_an_abandoned_transfer_ends_before_the_store_is_closed(
    bucket: S3, way: Way, tmp_path: Path, cut: bool
) -> None:
    """Bytes that no row names are whole, or not there at all."""
    values = bucket.settings()
    reached = Settings(data_dir=tmp_path, **{name.lower(): value for name, value in values.items()})
    store = make_store(reached.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{way.port}"}))
    unforeseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
    await store.start()
    writer, way.delay = store.writer(), 0.05
    await writer.write(os.urandom(2 * PART))
    commit = asyncio.create_task(store.commit(await writer.finish()))
    while way.sent < BATCH:  # noqa: ASYNC110, bytes that a thread counts
        await asyncio.sleep(0.01)
    way.cut_after = BATCH if cut else None
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    await writer.discard()
    await store.close()
    del commit
    gc.collect()
    assert len(s3.objects(values)) == (0 if cut else 1)
    assert not list((tmp_path / "staging").iterdir()) and unforeseen == []
