"""What is the same for every path: errors, slashes, methods, CORS. Also what operators and programmers read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from media_gallery import __version__
from media_gallery.app import COURIER_SOCKET, Gallery, assemble, build, make_courier
from media_gallery.courier import LogCourier, code_iq
from media_gallery.db import upkeep
from media_gallery.errors import Unavailable
from media_gallery.http import API
from media_gallery.settings import Settings
from tests import samples
from tests.service import MIB, Service, User, assert_error
from tests.slots import Slots

ORIGIN = {"Origin": "https://chat.example.com"}


def test_about(service: Service) -> None:
    about = service.http.get("/api/v1/").json()
    assert (about["name"], about["version"]) == ("media-gallery", __version__)
    assert (about["max_file_size"], about["default_quota"]) == (20 * MIB, 50 * MIB)


@pytest.mark.parametrize("operation", [o for o in API if o.method == "GET"], ids=lambda o: o.path)
def test_paths_answer_with_and_without_their_slash(admin: User, operation: object) -> None:
    path = "/api/v1" + operation.path.format(percent=10)  # type: ignore[attr-defined]
    query = "?name=a&size=1" if path.endswith("slot") else f"?jid={admin.jid}" if path.endswith("account/files") else ""
    expected = 403 if path.endswith("account/files") else 200  # a setting opens it
    answers = [admin.service.http.get(f"{path}{end}{query}", headers=admin.http.headers) for end in ("", "/")]
    assert [answer.status_code for answer in answers] == [expected, expected]
    assert not answers[0].history and answers[0].headers["Content-Type"] == "application/json"


def test_posts_and_deletes_without_slash(anna: User) -> None:
    answer = anna.http.post("files/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code == 201
    assert anna.http.request("DELETE", "files", json={"id": answer.json()["id"]}).status_code == 204


def test_unknown_paths_and_methods(service: Service, anna: User) -> None:
    for path in (
        "/nothing",
        "/web",
        "/api",
        "/api/v2/files/",
        "/api/v1/nothing/",
        "/api/v1/files/upload/more/",
        "/api/v1//files/",
    ):
        assert_error(service.http.get(path), 404)
    answer = anna.http.patch("files/")
    assert_error(answer, 405)
    assert "GET" in answer.headers["Allow"] and "DELETE" in answer.headers["Allow"]
    assert_error(anna.http.get("files/upload/"), 405)
    assert_error(anna.http.post("files/stats/"), 405)


def test_heads(anna: User) -> None:
    answer = anna.http.head("files/")
    assert answer.status_code == 200 and answer.content == b""


def test_malformed_bodies(anna: User) -> None:
    for body in (b"{", b"[1]", b'"x"', b"nothing", b"\xff\xfe", b'{"name": "\xff"}', b"[" * 60_000):
        answer = anna.http.request("DELETE", "files/", content=body, headers={"Content-Type": "application/json"})
        assert_error(answer, 400)
    assert_error(anna.http.request("DELETE", "files/", content=b"x" * 70_000), 413)


def test_null_characters_are_refused(anna: User) -> None:
    for name in ("name", "media_type"):
        assert_error(anna.get("files/", **{name: "a\0b"}), 400, name)


def test_json_that_is_called_a_form(anna: User) -> None:
    file, headers = anna.upload(b"1"), {"Content-Type": "application/x-www-form-urlencoded"}
    body = f'{{"id": {file["id"]}}}'.encode()
    assert anna.http.request("DELETE", "files/", content=body, headers=headers).status_code == 204


def test_a_body_wins_over_the_query(anna: User) -> None:
    first, second = anna.upload(b"1"), anna.upload(b"22")
    answer = anna.http.request("DELETE", f"files/?id={first['id']}", json={"id": second["id"]})
    assert answer.status_code == 204
    assert [item["id"] for item in anna.items()] == [first["id"]]


def test_numbers_and_truth_in_text(anna: User) -> None:
    anna.upload(b"12345")
    for truth in ("true", "1", "True", "false", "0"):
        assert anna.get("files/percent/10/", exclude_avatars=truth).status_code == 200
    for other in ("yes", "on", "maybe", "2"):
        assert_error(anna.get("files/percent/10/", exclude_avatars=other), 400, "exclude_avatars")


async def test_an_unexpected_error_shows_no_details(tmp_path: Path) -> None:
    class Broken:
        async def read(self, query: object) -> None:
            raise RuntimeError("an inner detail")

    app = build(Settings(data_dir=tmp_path), db=Broken())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gallery") as client:
        answer = await client.get("/api/v1/files/", headers=ORIGIN | {"Authorization": "Bearer some-token"})
    assert_error(answer, 500)
    assert "detail" not in answer.text and answer.headers["Access-Control-Allow-Origin"] == "*"


# --- Parts ---


async def test_parts_are_replaced_by_name_and_a_misspelt_name_is_an_error(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert build(settings, clock=lambda: 42).state.gallery.uploads.clock() == 42
    for make in (assemble, build):
        with pytest.raises(TypeError, match="clcok"):
            make(settings, clcok=lambda: 42)  # type: ignore[call-arg]


async def test_codes_are_logged_in_development_mode_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COURIER_SOCKET, raising=False)
    assert isinstance(make_courier(Settings(data_dir=tmp_path)), LogCourier)
    monkeypatch.setenv(COURIER_SOCKET, str(tmp_path / "courier"))
    assert isinstance(make_courier(Settings(data_dir=tmp_path)), LogCourier)  # that of another service
    configured = Settings(data_dir=tmp_path, xmpp_jid="gallery.example.org", xmpp_component_secret="secret")
    for socket in (None, "", str(tmp_path / "none")):
        if socket is None:
            monkeypatch.delenv(COURIER_SOCKET)
        else:
            monkeypatch.setenv(COURIER_SOCKET, socket)
        courier = make_courier(configured)
        for ask in (courier.check(), courier.send(code_iq("romeo@example.org/x", "1", "012345", "https://x"))):
            with pytest.raises(Unavailable):
                await ask


# --- CORS ---


def test_any_origin_by_default(anna: User) -> None:
    assert anna.http.get("files/", headers=ORIGIN).headers["Access-Control-Allow-Origin"] == "*"
    answer = anna.service.http.get("/api/v1/files/", headers=ORIGIN)  # an error can be read, too
    assert answer.status_code == 401 and answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/api/v1/files/", "/api/v1/files/upload", "/api/v1/account/quota/", "/media/x/y"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_preflights_need_no_token(service: Service, path: str, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, content-type"}
    answer = service.http.options(path, headers=ORIGIN | asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert method in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()


def test_origins_may_be_named(start_service: Callable[..., Service]) -> None:
    service = start_service(CORS_ORIGINS="https://chat.example.com")
    assert service.http.get("/api/v1/", headers=ORIGIN).headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    other = service.http.get("/api/v1/", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


# --- Headers ---


def test_no_answer_of_the_api_is_kept_or_taken_for_a_page(service: Service, anna: User) -> None:
    ours, strange = anna.get("files/"), service.http.get("/api/v1/files/")
    for answer in (ours, strange, anna.delete("files/", name="x"), service.http.get("/api/v1/")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"


# --- For operators ---


def test_health_and_readiness(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ready"}


def sample(service: Service, name: str) -> float | None:
    """The value of a metric without labels."""
    found = [row for row in service.http.get("/metrics").text.splitlines() if row.startswith(f"{name} ")]
    return float(found[0].split()[1]) if found else None


def test_metrics_count_what_happens(service: Service, anna: User) -> None:
    def value(line: str) -> float:
        found = [row for row in service.http.get("/metrics").text.splitlines() if row.startswith(line)]
        return float(found[0].rpartition(" ")[2]) if found else 0

    line = 'gallery_requests_total{method="POST",route="/api/v1/files/upload",status="201"}'
    before, bytes_before = value(line), value("gallery_received_bytes_total")
    anna.upload(b"x" * 100)
    service.wait_until(lambda: value(line) == before + 1)  # counted after the answer
    assert value("gallery_received_bytes_total") == bytes_before + 100


def test_one_line_a_request_and_no_secret(service: Service, anna: User) -> None:
    file = anna.upload(b"x", "very-private-name.txt")
    anna.http.get(file["file"])
    anna.http.get(f"{service.url}/api/v1/files/?token={anna.token}")
    lines = [line for line in service.log_lines() if line.get("event") == "request"]
    assert {"method", "route", "status", "ms", "account", "timestamp", "level"} <= set(lines[-1])
    assert lines[-1]["address"] == "127.0.0.0/24"
    for secret in (anna.token, "very-private-name", file["slot_id"]):
        assert secret not in service.log()


def test_two_workers_are_one_service(start_service: Callable[..., Service]) -> None:
    service = start_service(WORKERS="2", RATE_UPLOAD="20/day")
    user = service.user()
    files = [user.upload(f"file {number}".encode()) for number in range(20)]
    assert {item["id"] for item in user.items()} == {file["id"] for file in files}
    assert_error(user.send(b"one too many"), 429)  # the limit holds across workers
    counted = 'route="/api/v1/files/upload",status="201"} 20.0'
    service.wait_until(lambda: counted in service.http.get("/metrics").text)
    # What is true for the whole host or service is not added up over the workers.
    service.wait_until(lambda: sample(service, "gallery_disk_size_bytes"))
    found = os.statvfs(service.data_dir)
    assert sample(service, "gallery_disk_size_bytes") == found.f_blocks * found.f_frsize
    service.wait_until(lambda: sample(service, "gallery_counted_timestamp_seconds"))
    assert sample(service, "gallery_accounts") in (0, 1)  # counted before this test's account was made, or after

    used = sum(file["size"] for file in files)

    async def counts(gallery: Gallery) -> list[tuple[int, list[int]]]:
        async def count(quota: int) -> tuple[int, list[int]]:
            return await gallery.db.scan(lambda c: upkeep.count_quotas(c, quota, (0.9, 1)))

        assert await gallery.accounts.totals() == upkeep.Totals(1, 20, used, 20, used, 0)
        return [await count(quota) for quota in (10 * used, used * 10 // 9 - 1, used)]

    assert service.within(counts) == [(10 * used, [0, 0]), (used * 10 // 9 - 1, [1, 0]), (used, [1, 1])]


def test_links_with_a_former_public_url_go_on_working(start_service: Callable[..., Service]) -> None:
    """`PUBLIC_URL` is stored nowhere: only the path of an address counts, at whatever host name it is asked for."""
    former, now = "https://former.example.org", "https://now.example.org"
    service = start_service(PUBLIC_URL=former)
    user = service.user()
    file, avatar = user.upload(b"sent before", "a b.txt"), user.avatar(samples.picture("png", 64, 64))
    sent = [file["file"], avatar["file"], avatar["thumbnail"]["url"], avatar["thumbnails"][0]["url"]]
    slot, token = Slots(service).give(user, b"later")
    service.stop()
    service.settings["PUBLIC_URL"] = now
    service.start()
    [item] = user.items()
    assert all(address.startswith(former) for address in sent)
    assert (item["id"], item["file"]) == (file["id"], file["file"].replace(former, now))
    for address in sent:
        for host in (former, now):
            path = address.removeprefix(former)
            assert service.http.get(path, headers={"Host": host.removeprefix("https://")}).status_code == 200
    allowed = {"Host": "former.example.org", "Authorization": f"Bearer {token}"}
    assert service.http.put(slot, content=b"later", headers=allowed).status_code == 201
    assert user.delete("files/", file=file["file"]).status_code == 204  # an app names the address that it knows
    assert_error(service.http.get(file["file"].removeprefix(former)), 404)
    assert ", 0 wrong" in service.cli("fsck")
