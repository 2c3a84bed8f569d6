"""CORS: what pages of other origins may read from media and from the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service import Service, User, anyone, assert_error


def test_other_origins_may_read(anna: User) -> None:
    file, origin = anna.upload(b"open"), {"Origin": "https://chat.example.com"}
    assert anyone.get(file["file"], headers=origin).headers["Access-Control-Allow-Origin"] == "*"
    answer = anyone.get(file["file"], headers=origin | {"Range": "bytes=0-1"})
    for name in ("Content-Range", "ETag"):
        assert name in answer.headers["Access-Control-Expose-Headers"]
    asked = origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    refused = anyone.options(file["file"], headers={**asked, "Access-Control-Request-Method": "PATCH"})
    assert_error(refused, 400)
    preflight = anyone.options(file["file"], headers=asked)
    assert preflight.status_code == 200 and preflight.headers["Access-Control-Allow-Origin"] == "*"
    etag = anyone.head(file["file"]).headers["ETag"]
    for answer, status in (
        (anyone.get(file["file"], headers=origin | {"If-None-Match": etag}), 304),
        (anyone.get(file["file"], headers=origin | {"Range": "bytes=99-"}), 416),
        (anyone.get(file["file"] + "x", headers=origin), 404),
        (anyone.post(file["file"], headers=origin), 405),
    ):
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_an_answer_cached_without_an_origin_is_not_given_to_another_origin(anna: User) -> None:
    answer = anyone.get(anna.upload(b"for an <img> first, for a script later")["file"])
    assert answer.headers.get("Access-Control-Allow-Origin") == "*" or "Origin" in answer.headers.get("Vary", "")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "files/upload/"), ("POST", "avatar/upload/"), ("GET", "files/"), ("DELETE", "files/"),
     ("PUT", "account/quota/"), ("POST", "account/xmpp_auth/"), ("DELETE", "account/"), ("GET", "files/stats")],
)  # fmt: skip
def test_preflights_of_the_api_need_no_token(service: Service, method: str, path: str) -> None:
    wanted = {"authorization", "content-type", "x-requested-with"}
    preflight = anyone.options(
        f"{service.url}/api/v1/{path}",
        headers={"Origin": "https://chat.example.com", "Access-Control-Request-Method": method,
                 "Access-Control-Request-Headers": ", ".join(wanted)},
    )  # fmt: skip
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert method in preflight.headers["Access-Control-Allow-Methods"].split(", ")
    allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}
    assert wanted <= allowed


def test_answers_of_the_api_can_be_read_by_other_origins(anna: User) -> None:
    origin = {"Origin": "https://chat.example.com"}
    for answer, status in (
        (anna.http.get("files/", headers=origin), 200),
        (anna.http.get("files/", headers=origin, params={"page": "x"}), 400),
        (anyone.get(f"{anna.service.url}/api/v1/files/", headers=origin), 401),
        (anna.http.delete("files/?id=999999999", headers=origin), 404),
        (anna.http.put("account/quota/", json={"value": 1}, headers=origin), 403),
        (anyone.patch(f"{anna.service.url}/api/v1/files/", headers=origin), 405),
        (anyone.get(f"{anna.service.url}/api/v1/nothing/", headers=origin), 404),
    ):
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_only_the_origins_of_the_settings_may_read(start_service: Callable[..., Service]) -> None:
    service = start_service(CORS_ORIGINS="https://chat.example.com,https://web.example.org")
    user = service.user()
    file = user.upload(b"for some")
    for origin, allowed in (
        ("https://chat.example.com", True), ("https://web.example.org", True), ("https://evil.example.net", False),
        ("https://chat.example.com.evil.example.net", False), ("null", False),
    ):  # fmt: skip
        for answer in (
            anyone.get(file["file"], headers={"Origin": origin}),
            user.http.get("files/", headers={"Origin": origin}),
            anyone.options(file["file"], headers={"Origin": origin, "Access-Control-Request-Method": "GET"}),
        ):
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert "Origin" in answer.headers["Vary"]
