"""The command line, as an operator types it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.service import PROGRAM, Service, anyone, environment


@pytest.fixture(scope="module")
def house(start_service: Callable[..., Service]) -> Service:
    """A running service for this file alone, so that its content can be counted and damaged."""
    return start_service()


def test_help_names_every_command(house: Service) -> None:
    text = house.cli("--help")
    for command in ("serve", "token", "account", "stats", "gc", "fsck", "config", "db"):
        assert command in text
    assert "--repair" in house.cli("fsck", "--help")
    assert "create" in house.cli("token", "--help")


def test_the_last_line_of_token_create_is_the_token(house: Service) -> None:
    token = house.cli("token", "create", "Carol@Example.org").splitlines()[-1]
    answer = anyone.get(f"{house.url}/api/v1/account/quota/", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert (
        anyone.get(f"{house.url}/api/v1/account/list/", headers={"Authorization": f"Bearer {token}"}).status_code == 403
    )
    admin = json.loads(house.cli("token", "create", "carol@example.org", "--admin", "--json"))["token"]
    assert (
        anyone.get(f"{house.url}/api/v1/account/list/", headers={"Authorization": f"Bearer {admin}"}).status_code == 200
    )


def test_tokens_are_listed_and_revoked(house: Service) -> None:
    user = house.user(jid="dave@example.org")
    [token] = json.loads(house.cli("token", "list", "dave@example.org", "--json"))
    assert token["device"] == "test"
    assert user.token not in house.cli("token", "list", "dave@example.org")
    house.cli("token", "revoke", "dave@example.org", str(token["id"]))
    assert user.get("files/").status_code == 401
    assert "no such token" in house.cli("token", "revoke", "dave@example.org", str(token["id"]), code=1)


def test_accounts_are_shown_and_given_quotas(house: Service) -> None:
    user = house.user(jid="erin@cli.example")
    user.upload(b"x" * 1500, "a.bin")
    [account] = json.loads(house.cli("account", "list", "--vhost", "cli.example", "--json"))
    assert (account["jid"], account["used"], account["files"]) == ("erin@cli.example", 1500, 1)
    assert "1.5 KiB" in house.cli("account", "list", "--vhost", "cli.example")
    shown = json.loads(house.cli("account", "show", "erin@cli.example", "--json"))
    assert {row["category"]: row["used"] for row in shown["categories"]}["file"] == 1500
    house.cli("account", "set-quota", "erin@cli.example", "2 MiB")
    assert user.get("account/quota/").json()["quota"] == 2 * 1024 * 1024
    house.cli("account", "set-quota", "erin@cli.example", "default")
    assert user.get("account/quota/").json()["quota"] == 50 * 1024 * 1024
    assert "size" in house.cli("account", "set-quota", "erin@cli.example", "much", code=1)
    assert "no such account" in house.cli("account", "show", "nobody@cli.example", code=1)
    assert "JID" in house.cli("account", "show", "@", code=1)


def test_the_deletion_of_an_account_must_be_confirmed(house: Service) -> None:
    user = house.user(jid="frank@example.org")
    file = user.upload(b"frank's only file")
    assert "--yes" in house.cli("account", "delete", "frank@example.org", code=1)
    assert user.get("files/").status_code == 200
    house.cli("account", "delete", "frank@example.org", "--yes")
    assert user.get("files/").status_code == 401
    assert user.http.get(file["file"]).status_code == 404


def test_stats_tell_what_is_stored_once_and_counted_twice(start_service: Callable[..., Service]) -> None:
    service = start_service()
    for _ in range(2):
        service.user().upload(b"y" * 1000)
    assert json.loads(service.cli("stats", "--json")) == {
        "accounts": 2, "links": 2, "used": 2000, "blobs": 1, "stored": 1000,
    }  # fmt: skip


def test_gc_removes_what_no_link_needs_and_nothing_else(house: Service) -> None:
    file = house.user().upload(b"needed bytes")
    orphan, slot = house.tree / "blobs/ab" / ("ab" * 16), house.tree / "links/cd" / ("cd" * 16)
    orphan.write_bytes(b"orphan")
    slot.mkdir()
    (slot / "name").symlink_to("../../../blobs/ab/ab")
    (house.data_dir / "staging" / "unfinished").write_bytes(b"half")
    swept = json.loads(house.cli("gc", "--json"))  # a running upload looks the same as these
    assert (swept["orphans"], swept["slots"], swept["staged"]) == (0, 0, 0)
    assert "stop it first" in house.cli("gc", "--older-than", "59 min", code=1)
    assert "stop it first" in house.cli("gc", code=1, GC_GRACE="0")
    assert orphan.exists() and slot.exists()
    house.stop()
    swept = json.loads(house.cli("gc", "--older-than", "0", "--json"))
    assert (swept["orphans"], swept["slots"], swept["staged"], swept["staged_bytes"]) == (1, 1, 1, 4)
    assert not orphan.exists() and not slot.exists()
    assert sum(json.loads(house.cli("gc", "--older-than", "0", "--json")).values()) == 0
    house.start()
    assert anyone.get(file["file"]).content == b"needed bytes"


def test_a_service_leaves_uploads_under_way_whatever_the_grace(start_service: Callable[..., Service]) -> None:
    service = start_service()
    fresh, old = (service.data_dir / "staging" / name for name in ("fresh", "old"))
    service.stop()
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    service.settings["GC_GRACE"] = "0"
    service.start()
    service.wait_until(lambda: not old.exists())
    assert fresh.exists()


def test_gc_leaves_what_was_just_changed(house: Service) -> None:
    fresh = house.data_dir / "staging" / "fresh"
    fresh.write_bytes(b"on its way")
    house.cli("gc", "--older-than", "1 h")
    assert fresh.exists()
    fresh.unlink()
    assert "must be a time" in house.cli("gc", "--older-than", "soon", code=1)


def stored(service: Service, digest: str) -> Path:
    """The file of a blob."""
    [path] = [p for p in (service.tree / "blobs").rglob("*") if p.is_file() and digest in _sha1(p)]
    return path


def _sha1(path: Path) -> str:
    import hashlib

    return hashlib.sha1(path.read_bytes()).hexdigest()


def test_fsck_finds_and_repairs(start_service: Callable[..., Service]) -> None:
    service = start_service()
    links = service.tree / "links"
    service.wait_until(lambda: "the tree of links was looked over" in service.log())
    user = service.user()
    lost, damaged, unpublished = (user.upload(os.urandom(1000), f"{n}.bin") for n in range(3))
    assert "0 wrong" in service.cli("fsck")
    stored(service, lost["hash"]).unlink()
    with stored(service, damaged["hash"]).open("ab") as file:
        file.write(b"more")
    shutil.rmtree(links / unpublished["slot_id"][:2] / unpublished["slot_id"])
    service.within(lambda g: g.db.write(lambda c: c.run("UPDATE accounts SET used = used + 5")))
    found = service.cli("fsck", code=1)
    for kind in ("lost", "damaged", "unpublished", "miscounted"):
        assert kind in found, found
    assert "(repaired)" in service.cli("fsck", "--repair", code=1)  # fsck cannot repair damaged bytes
    report = json.loads(service.cli("fsck", "--json", code=1).partition("\n\n")[0])
    assert [finding["kind"] for finding in report["findings"]] == ["damaged"]
    assert (report["blobs"], report["links"], report["spare"]) == (2, 2, 0)
    assert user.used() == 2000
    assert {file["id"] for file in user.items()} == {damaged["id"], unpublished["id"]}
    assert (links / unpublished["slot_id"][:2] / unpublished["slot_id"] / "2.bin").exists()


def test_fsck_repairs_nothing_if_the_storage_is_missing(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    files = [user.upload(os.urandom(1000), f"{n}.bin") for n in range(3)]
    blobs = service.tree / "blobs"
    blobs.rename(service.tree / "unmounted")
    assert "lost" in service.cli("fsck", code=1)
    said = service.cli("fsck", "--repair", code=1)
    assert "none of the 3 oldest files" in said and "(repaired)" not in said
    assert len(user.items()) == 3
    shutil.rmtree(blobs)
    (service.tree / "unmounted").rename(blobs)
    assert "0 wrong" in service.cli("fsck")
    for file in files:
        stored(service, file["hash"]).unlink()
    assert "(repaired)" in service.cli("fsck", "--repair", "--all-lost")
    assert user.items() == [] and user.used() == 0


def test_gc_removes_nothing_if_database_and_storage_belong_to_two_galleries(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service()
    blobs, empty = service.tree / "blobs", {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite"}
    own = stored(service, service.user().upload(b"needed bytes")["hash"])
    strangers = [blobs / f"{number:02x}" / f"{number:02x}{number:030x}" for number in range(100)]
    for path in strangers:
        path.write_bytes(b"another gallery's")
    service.stop()
    service.cli("db", "upgrade", code=0, **empty)
    for database in (empty, {}):
        assert "does not name" in service.cli("gc", "--older-than", "0", code=1, **database)
    own.rename(tmp_path / "own")
    assert "none of the 1 oldest files" in service.cli("gc", "--older-than", "0", code=1)
    assert all(path.exists() for path in strangers)
    assert json.loads(service.cli("gc", "--older-than", "0", "--all-lost", "--json"))["orphans"] == 100


def test_config_masks_secrets_and_names_mistakes(house: Service) -> None:
    text = house.cli("config", XMPP_JID="gallery.example.org", XMPP_COMPONENT_SECRET="s3cret")
    assert "s3cret" not in text and "********" in text and "MEDIA_GALLERY_DEFAULT_QUOTA" in text
    shown = json.loads(house.cli("config", "--json"))
    assert shown["MEDIA_GALLERY_DEFAULT_QUOTA"]["value"] == 50 * 1024 * 1024
    wrong = house.cli("config", code=1, MAX_FILE_SIZE="huge", ADMINS="@", XMPP_PORT="99999")
    for name in ("MEDIA_GALLERY_MAX_FILE_SIZE", "MEDIA_GALLERY_ADMINS", "MEDIA_GALLERY_XMPP_PORT"):
        assert name in wrong
    assert "MEDIA_GALLERY_LISTEN" in house.cli("serve", code=1, LISTEN="nowhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://g:hunter2@h/db"),
        ("DATABASE_URL", "postgresql://h/db?user=g&password=hunter2"),
        ("RATES_URL", "redis://h:1/0?password=hunter2"),
        ("S3_ENDPOINT", "https://k:hunter2@s3.example.org"),
    ],
)
def test_config_masks_what_addresses_carry(house: Service, name: str, value: str) -> None:
    text = house.cli("config", code=0, **{name: value})
    assert "hunter2" not in text and "********" in text


def test_an_address_that_cannot_be_read_is_not_shown(house: Service) -> None:
    told = house.cli("config", code=1, DATABASE_URL="postgresql://g:hunt/hunter2@er2@h/db")
    assert "DATABASE_URL must be like" in told and "hunt" not in told and "er2" not in told


def test_an_unknown_variable_is_reported(house: Service) -> None:
    assert "MEDIA_GALLERY_DENIED_DOMANS: is not a setting" in house.cli("serve", code=1, DENIED_DOMANS="evil.test")


@pytest.mark.parametrize("place", ["/proc/nope", "/etc/passwd"])
def test_an_impossible_data_directory_is_an_error(house: Service, place: str) -> None:
    for command in ("serve", "stats"):
        told = house.cli(command, code=1, DATA_DIR=place, LISTEN=f"127.0.0.1:{free_port()}")
        assert place in told and "Traceback" not in told


def modes(service: Service) -> dict[str, int]:
    """What group and others may do with the data directory, a new blob, its directory, and the databases."""
    blob = stored(service, service.user().upload(os.urandom(100))["hash"])
    databases = (path for path in service.data_dir.iterdir() if path.name.endswith((".sqlite", "-wal", "-shm")))
    paths = {"directory": service.data_dir, "blob": blob, "folder": blob.parent}
    return {name: path.stat().st_mode & 0o077 for name, path in paths.items()} | {
        "databases": max(path.stat().st_mode & 0o077 for path in databases)
    }


@pytest.mark.same_everywhere
def test_only_a_web_server_that_sends_files_may_read_them(
    house: Service, start_service: Callable[..., Service]
) -> None:
    assert modes(house) == {"directory": 0, "blob": 0, "folder": 0, "databases": 0}
    service = start_service(ACCEL_PREFIX="/protected")
    assert modes(service) == {"directory": 0o050, "blob": 0o040, "folder": 0o050, "databases": 0}
    assert "chmod" not in service.cli("doctor")
    (service.tree / "blobs").chmod(0o700)  # as if ACCEL_PREFIX was set later
    assert "chmod -R g+rX" in service.cli("doctor", code=1)


def states(told: str) -> dict[str, str]:
    """The worst state of each thing that `doctor` has tried."""
    found: dict[str, str] = {}
    for finding in json.loads(told):
        found[finding["about"]] = max(found.get(finding["about"], ""), finding["state"])  # ok, warning, wrong
        assert finding["state"] == "ok" or finding["found"]
    return found


def test_the_doctor_finds_nothing_wrong(house: Service) -> None:
    found = states(house.cli("doctor", "--json"))
    assert {name for name, state in found.items() if state == "ok"} >= {
        "database",
        "storage",
        "rates",
        "public address",
    }
    assert set(found) == {"settings", "data directory", "disk", "clock", "database", "storage", "rates", "decoders",
                          "XMPP", "public address"}  # fmt: skip


def test_the_doctor_finds_what_is_wrong(house: Service, tmp_path: Path) -> None:
    away = f"127.0.0.1:{free_port()}"
    wrong = {
        "DATABASE_URL": f"postgresql://{away}/gallery", "RATES_URL": f"redis://{away}/0", "MIN_FREE_SPACE": "900 TB",
        "STORAGE_URL": "s3://bucket", "S3_ENDPOINT": f"http://{away}", "S3_ACCESS_KEY_ID": "k",
        "S3_SECRET_ACCESS_KEY": "hunter2", "PUBLIC_URL": f"http://{away}", "XMPP_JID": "gallery.example.org",
        "XMPP_COMPONENT_SECRET": "hunter2", "XMPP_COMPONENT_PORT": away.rpartition(":")[2],
    }  # fmt: skip
    told = house.cli("doctor", code=1, **wrong)
    found = {line[8:23].strip() for line in told.splitlines() if line.startswith("wrong")}
    assert found == {"disk", "database", "storage", "rates", "XMPP", "public address"}
    assert "hunter2" not in told and "ALLOWED_DOMAINS is empty" in told and "nothing answers at 127.0.0.1" in told
    none = states(house.cli("doctor", "--json", code=0, DATA_DIR=tmp_path / "none"))
    assert (none["data directory"], "storage" in none) == ("warning", False)
    assert not (tmp_path / "none").exists()


def test_piped_output_is_complete(house: Service) -> None:
    jid = f"{'a' * 900}@{'.'.join(['b' * 60] * 4)}"
    house.cli("token", "create", jid, "--device", "c" * 200)
    assert jid in house.cli("account", "list") and "c" * 200 in house.cli("token", "list", jid)


def test_programs_can_read_what_was_done(house: Service) -> None:
    user = house.user()
    [token] = json.loads(house.cli("token", "list", user.jid, "--json"))
    assert json.loads(house.cli("token", "revoke", user.jid, str(token["id"]), "--json"))["revoked"] == token["id"]
    told = json.loads(house.cli("account", "set-quota", user.jid, "5KiB", "--json"))
    assert told == {"jid": user.jid, "quota": 5120, "used": 0}
    assert json.loads(house.cli("account", "delete", user.jid, "--yes", "--json")) == {"deleted": user.jid}
    assert set(json.loads(house.cli("db", "upgrade", "--json"))) == {"before", "after"}


def test_a_second_service_at_the_same_address_is_refused(house: Service, tmp_path: Path) -> None:
    told = house.cli("serve", code=1, DATA_DIR=tmp_path)
    assert "cannot be listened on" in told and "MEDIA_GALLERY_LISTEN" in told
    assert "cannot be listened on" in house.cli("serve", code=1, DATA_DIR=tmp_path, LISTEN="192.0.2.1:80")


def test_a_settings_file(house: Service, tmp_path: Path) -> None:
    file = tmp_path / "gallery.toml"
    file.write_text('cors_origins = ["https://chat.example.org"]\ncolour = "blue"\n')
    assert "COLOUR: is not a setting" in house.cli("config", "--config", str(file), code=1)
    file.write_text('cors_origins = ["https://chat.example.org"]\nmax_file_size = "3 MiB"\n')
    shown = json.loads(house.cli("config", "--config", str(file), "--json"))
    assert shown["MEDIA_GALLERY_CORS_ORIGINS"] == {"value": ["https://chat.example.org"], "from": str(file)}
    assert shown["MEDIA_GALLERY_MAX_FILE_SIZE"] == {"value": 20 * 1024 * 1024, "from": "environment"}  # it wins
    assert "cannot be read" in house.cli("config", "--config", str(tmp_path / "none.toml"), code=1)


def test_db_upgrade(tmp_path: Path) -> None:
    service = Service(tmp_path)
    assert "Migrated from nothing" in service.cli("db", "upgrade")
    assert "up to date" in service.cli("db", "upgrade")


def test_a_database_of_another_version_is_not_touched(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.cli("db", "upgrade")
    service.within(lambda g: g.db.write(lambda c: c.run("UPDATE alembic_version SET version_num = '9999'")))
    assert "run `media-gallery db upgrade`" in service.cli("stats", code=1)
    for command in (["db", "upgrade"], ["serve"]):
        assert "a newer version made" in service.cli(*command, code=1)


def test_a_filled_database_stays_filled_when_it_is_migrated_again(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    file = user.upload(b"kept")
    for _ in range(2):
        assert "up to date" in service.cli("db", "upgrade")
    service.stop()
    assert "up to date" in service.cli("db", "upgrade")
    service.start()
    assert [item["id"] for item in user.items()] == [file["id"]]
    assert user.http.get(file["file"]).content == b"kept"
    assert "0 wrong" in service.cli("fsck")


@pytest.mark.same_everywhere
def test_the_cursor_comes_back_after_ctrl_c(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # so the command waits for its database
        address = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/gallery"
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(PROGRAM, [PROGRAM, "fsck"], environment(DATA_DIR=tmp_path, DATABASE_URL=address))
        said = b""
        while b"\x1b[?25l" not in said:  # the progress bars hide the cursor
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"\x1b[?25h" not in said:
            said += os.read(terminal, 1000)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        os.close(terminal)
    assert b"Traceback" not in said
