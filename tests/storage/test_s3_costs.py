"""What files in a bucket cost the host that sends them: memory, room in staging, bytes read back."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from bench.servers import Peak, family
from tests import s3, samples
from tests.faults.raw import END, part
from tests.s3 import S3
from tests.service import MIB, Service
from tests.tcp import Way


def held(service: Service) -> list[str]:
    """Files in staging that exist, or are removed but still open in a process."""
    assert service.process
    staging = str(service.data_dir / "staging")
    found = [str(path) for path in Path(staging).iterdir()]
    for pid in family(service.process.pid):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                goal = str(descriptor.readlink())
            except OSError:
                continue
            found += [goal] if goal.startswith((staging, "/memfd:staged")) else []
    return found


def test_staging_keeps_nothing_of_what_was_sent(distant: Service) -> None:
    user = distant.user()
    for size in (1000, 3 * MIB):
        user.upload(os.urandom(size))
    assert held(distant) == []


def test_a_thumbnail_is_made_of_the_bytes_that_are_still_in_staging(way: Way, distant: Service) -> None:
    user = distant.user()
    for data in (samples.noise("jpeg"), samples.noise("png", 900, 600)):
        came = way.received
        file = user.upload(data, "photo.png")
        assert file["thumbnail"]["width"] and way.received - came < len(data)
        assert samples.is_image(user.http.get(file["thumbnail"]["url"]).content)
    distant.wait_until(lambda: held(distant) == [])


def test_a_large_upload_is_never_in_memory(bucket: S3, start_service: Callable[..., Service]) -> None:
    limits = {"MAX_FILE_SIZE": "300 MiB", "DEFAULT_QUOTA": "300 MiB"}
    service = start_service(**bucket.settings() | limits)
    user = service.user()
    user.upload(os.urandom(20 * MIB))  # loads what is loaded once
    assert service.process
    with Peak(service.process.pid) as peak:
        user.upload(os.urandom(MIB) * 200)
    assert peak.growth < 120


def test_a_client_that_goes_while_the_store_takes_its_file(way: Way, distant: Service) -> None:
    """The file was complete, so it is kept. Nothing of it is left in staging."""
    user = distant.user()
    way.delay = 0.05
    body = part("file", os.urandom(6 * MIB), "a.bin") + END
    head = (
        f"POST /api/v1/files/upload/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=faults\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sent = way.sent
    with socket.create_connection(("127.0.0.1", distant.port)) as client:
        client.sendall(head.encode() + body)
        distant.wait_until(lambda: way.sent > sent + MIB)
    distant.wait_until(lambda: len(user.items()) == 1)
    way.delay = 0.0
    distant.wait_until(lambda: held(distant) == [])
    assert len(s3.objects(distant.settings)) == 1
    assert "0 wrong" in distant.cli("fsck")
    assert "Traceback" not in distant.log() and "never retrieved" not in distant.log()


def test_a_service_that_stops_while_the_store_takes_a_file(way: Way, distant: Service) -> None:
    user = distant.user()
    way.delay = 0.05
    answers: list[int | str] = []

    def send() -> None:
        try:
            answers.append(user.send(os.urandom(6 * MIB)).status_code)
        except httpx.TransportError as error:
            answers.append(repr(error))

    client, sent = threading.Thread(target=send), way.sent
    client.start()
    distant.wait_until(lambda: way.sent > sent + MIB)
    assert distant.stop() == 0
    client.join()
    assert "Traceback" not in distant.log() and "never retrieved" not in distant.log()
    way.delay = 0.0
    distant.start()
    assert answers == [201] and len(user.items()) == 1
    assert "0 wrong" in distant.cli("fsck")
