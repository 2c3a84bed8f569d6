"""A real S3 store for one test run: a Ceph cluster of one monitor, one disk in a sparse file, and its gateway."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.ports import free_port
from tests.waiting import DEADLINE, wait_until

KEY, SECRET, BUCKET = "gallery-key", "gallery-secret", "gallery"
PORTS = 10
"""One for the gateway, one for the monitor, the rest for the disk's daemon."""
QUESTIONS = 32
"""So many objects that almost certainly some are in every part of the disk."""


@cache
def client(endpoint: str) -> Any:
    """A client from another library than the service's own."""
    session = botocore.session.get_session()
    session.set_credentials(KEY, SECRET)
    config = Config(s3={"addressing_style": "path"}, read_timeout=DEADLINE, retries={"max_attempts": 0})
    return session.create_client("s3", "us-east-1", endpoint_url=endpoint, config=config)


def objects(settings: dict[str, Any]) -> list[str]:
    """The objects in a service's part of the bucket."""
    prefix = settings["STORAGE_URL"].removeprefix(f"s3://{BUCKET}/")
    pages = (
        client(settings["S3_ENDPOINT"]).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    )
    return [entry["Key"].removeprefix(f"{prefix}/") for page in pages for entry in page.get("Contents", ())]


class S3:
    """A store on the loopback only, with path-style addresses. `stop` removes the directory that holds everything."""

    def __init__(self) -> None:
        assert shutil.which("radosgw"), "Ceph is not installed: run make setup"
        self.directory = Path(tempfile.mkdtemp(prefix="gallery-s3-"))
        self.port, self._numbers = free_port(PORTS), count(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._make()
        except BaseException:
            self.stop()
            raise

    def _make(self) -> None:
        fsid = str(uuid4())
        (self.directory / "ceph.conf").write_text(CONFIGURATION.format(
            directory=self.directory, fsid=fsid, gateway=self.port, monitor=self.port + 1, first=self.port + 2,
            last=self.port + PORTS - 1, classes=next(Path("/usr/lib").glob("*/rados-classes")),
        ))  # fmt: skip
        monitor = f"[v2:127.0.0.1:{self.port + 1}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, "monmap")
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", "monmap")
        self._start("ceph-mon", "-i", "a")
        (self.directory / "osd").mkdir()
        self._until(lambda: self._run("ceph", "--connect-timeout", str(int(DEADLINE)), "osd", "new", fsid, "0"))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", fsid)
        self._start("ceph-osd", "-i", "0")
        self._until(lambda: self._run("radosgw-admin", "user", "create", "--uid", "tests", "--display-name", "tests",
                                      "--access-key", KEY, "--secret-key", SECRET))  # fmt: skip
        self._start_gateway()
        self._until(lambda: client(self.endpoint).create_bucket(Bucket=BUCKET))
        self._until(self._take_all)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run([program, "-c", "ceph.conf", *words] if program != "monmaptool" else [program, *words],
                       cwd=self.directory, check=True, capture_output=True, timeout=2 * DEADLINE)  # fmt: skip

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{program}.out").open("ab")
        self._running[program] = subprocess.Popen(
            [program, "-c", "ceph.conf", "-f", *words], cwd=self.directory, stdout=log, stderr=log
        )
        return self._running[program]

    @staticmethod
    def _until(attempt: Callable[[], Any]) -> None:
        said: list[str] = []

        def done() -> bool:
            try:
                attempt()
                return True
            except (subprocess.SubprocessError, BotoCoreError, ClientError) as error:
                said[:] = [str(error), str(getattr(error, "stderr", ""))]
                return False

        wait_until(done, lambda: "\n".join(["the S3 store does not start", *said]), pause=0.2, deadline=3 * DEADLINE)

    def settings(self) -> dict[str, Any]:
        """Settings of a service with its own empty store, which may pause for as long as a test waits for anything."""
        return {"STORAGE_URL": f"s3://{BUCKET}/store-{next(self._numbers)}", "S3_ENDPOINT": self.endpoint,
                "S3_ACCESS_KEY_ID": KEY, "S3_SECRET_ACCESS_KEY": SECRET, "S3_TIMEOUT": DEADLINE}  # fmt: skip

    def set_quota(self, size: int | None) -> None:
        """Limit the bytes that the account may store. None: as many as there is room for."""
        if size is not None:
            self._run("radosgw-admin", "quota", "set", "--quota-scope=user", "--uid", "tests", "--max-size", str(size))
        state = "disable" if size is None else "enable"
        self._run("radosgw-admin", "quota", state, "--quota-scope=user", "--uid", "tests")

    def pause(self) -> None:
        """End the gateway at once. From then on connections are refused."""
        gateway = self._running.pop("radosgw")
        gateway.kill()
        gateway.wait()

    def resume(self) -> None:
        self._start_gateway()
        self._until(self._take_all)

    def _start_gateway(self) -> None:
        self._start("radosgw", "-n", "client.rgw")
        self._until(lambda: client(self.endpoint).list_buckets())

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """During the block the gateway accepts connections and answers nothing."""
        disk = self._running["ceph-osd"]
        disk.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            disk.send_signal(signal.SIGCONT)
            self._until(self._take_all)

    def _take_all(self) -> None:
        """Wait until every part of the disk answers: after a start, each is made or comes back at its own time.

        That one part answers tells nothing about the others.
        """
        asked = client(self.endpoint)
        for number in range(QUESTIONS):
            asked.put_object(Bucket=BUCKET, Key=f"ready/{number}", Body=b"x")
        place = {"Bucket": BUCKET, "Key": "ready/parts"}
        upload = {**place, "UploadId": asked.create_multipart_upload(**place)["UploadId"]}
        asked.upload_part(**upload, PartNumber=1, Body=b"x")
        asked.abort_multipart_upload(**upload)
        for number in range(QUESTIONS):
            asked.delete_object(Bucket=BUCKET, Key=f"ready/{number}")

    def stop(self) -> None:
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = {first}
ms bind port max = {last}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
paxos propose interval = 0.05
debug bluestore = 0
debug bluefs = 0
debug rocksdb = 0
keyring = {directory}/keyring
run dir = {directory}
crash dir = {directory}
log file = {directory}/$name.log
pid file =
admin socket =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# Without a copy elsewhere, a disk that stood still for longer than this never answers again.
osd heartbeat grace = 3600
mon allow pool size one = true

[mon]
mon data = {directory}/mon
mon data avail warn = 2
mon data avail crit = 1

[osd]
osd data = {directory}/osd
osd objectstore = bluestore
osd class dir = {classes}
bluestore block size = 21474836480
osd memory target = 939524096

[client.rgw]
rgw data = {directory}
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
rgw thread pool size = 64
"""
