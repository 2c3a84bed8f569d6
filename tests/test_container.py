"""The container image and the compose file: what they name is there, and agrees."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from media_gallery.settings import NO_FILE, PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "contrib" / "compose"
IMAGE = (ROOT / "Containerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
NGINX, GALLERY = SERVICES["nginx"], SERVICES["gallery"]
FILLED_IN = {
    **dict.fromkeys(re.findall(r"^(\w+)=$", (COMPOSE / "example.env").read_text(), re.MULTILINE), "filled-in"),
    "DOMAIN": "example.org",
}
pytestmark = pytest.mark.same_everywhere


def instructions(name: str) -> list[str]:
    """What the image's last stage says after an instruction's name."""
    return re.findall(rf"^{name} (.*)$", IMAGE.rpartition("\nFROM ")[2], re.MULTILINE)


def interpolated(text: str) -> str:
    """The text with the variables of the `.env` file in it; each must be filled in."""
    return re.sub(r"\$\{(\w+):\?\}", lambda variable: FILLED_IN[variable[1]], text)


def host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


def address(service: dict[str, Any]) -> str:
    found = service["networks"]["front"]["ipv4_address"]
    assert isinstance(found, str)
    return found


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings in force in the container."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for line in instructions("ENV"):
        for word in line.split():
            monkeypatch.setenv(*word.split("=", 1))
    for name, value in GALLERY["environment"].items():
        assert isinstance(value, str)
        monkeypatch.setenv(name, interpolated(value))
    return load_settings(NO_FILE)


def test_the_settings_are_settings_and_what_is_meant(settings: Settings) -> None:
    assert settings.warnings() == []
    assert settings.public_url == "https://gallery.example.org" and settings.allowed_domains == ["example.org"]
    assert settings.database_url == f"postgresql://gallery:{FILLED_IN['DATABASE_PASSWORD']}@database/gallery"


def test_addresses_and_ports_agree(settings: Settings) -> None:
    host, port = settings.address
    assert host == "0.0.0.0"
    assert instructions("EXPOSE") == [str(port)] and f"C('127.0.0.1', {port})" in IMAGE
    assert NGINX["environment"]["GALLERY"] == f"{address(GALLERY)}:{port}"
    assert settings.trusted_proxies == [address(NGINX)]
    others = [settings.xmpp_component_host, *map(host_of, (settings.database_url, settings.s3_endpoint))]
    assert sorted(others) == sorted(GALLERY["depends_on"])
    assert f"/{settings.xmpp_component_port}" in SERVICES["prosody"]["healthcheck"]["test"][-1]
    assert settings.s3_endpoint.removeprefix("http://store") in SERVICES["store"]["healthcheck"]["test"][-1]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx", "prosody"]


def test_the_data_are_in_a_volume_of_a_user_who_is_not_root(settings: Settings) -> None:
    [user], [volume] = instructions("USER"), instructions("VOLUME")
    assert user == "10001:10001" and f"--uid {user.partition(':')[0]}" in IMAGE
    assert volume == str(settings.data_dir) and GALLERY["volumes"] == [f"gallery:{volume}"]
    assert re.search(rf"install -d -m 700 .* {volume}$", IMAGE, re.MULTILINE)


def test_every_service_is_confined() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":\d|^localhost/", service["image"]), name
        for other, needed in service.get("depends_on", {}).items():
            assert needed == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other] or other == "gallery"  # whose image has one
    for alone in ("database", "store"):
        assert {name for name, service in SERVICES.items() if alone in service["networks"]} == {"gallery", alone}


def test_no_secret_has_a_default() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(.*?)\}", text)) == {f"{name}:?" for name in FILLED_IN}
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD", variable):
                assert value.startswith("${"), (name, variable)


def test_what_is_mounted_and_copied_is_there() -> None:
    declared = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["volumes"]
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    for source, _, *mode in (interpolated(volume).split(":") for volume in mounted):
        if source.startswith("."):
            assert mode == ["ro"]
            assert source.startswith("./certificates/") or (COMPOSE / source).exists(), source
        else:
            assert source in declared and mode == []
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    build = (ROOT / "contrib" / "deb" / "build").read_text()
    [copied] = re.findall(r'^cp -r (.*) "\$home"$', build, re.MULTILINE)
    for name in (*copied.split(), "pyproject.toml", "requirements.txt", "media_gallery"):
        assert (ROOT / name).exists() and any(Path(name).match(pattern) for pattern in kept), name


def test_nginx_gets_the_site_with_our_names(tmp_path: Path) -> None:
    script = COMPOSE / "nginx.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.name in str(NGINX["volumes"]) and ":/etc/nginx/media-gallery:ro" in str(NGINX["volumes"])
    (tmp_path / "conf.d").mkdir()
    site = (ROOT / "contrib" / "nginx" / "media-gallery.conf").read_text()
    (tmp_path / "media-gallery.conf").write_text(site)
    environment = {**os.environ, "DOMAIN": "example.net", "GALLERY": NGINX["environment"]["GALLERY"]}
    text = script.read_text().replace("/etc/nginx", str(tmp_path))
    subprocess.run(["sh"], input=text, text=True, env=environment, check=True)
    made = (tmp_path / "conf.d" / "media-gallery.conf").read_text()
    assert "server_name gallery.example.net;" in made and f"server {environment['GALLERY']};" in made
    assert "example.org" not in made and "127.0.0.1:8080" not in made
    if Path("/proc/net/if_inet6").exists():
        assert made.count("\n") == site.count("\n")


def test_prosody_takes_its_configuration(tmp_path: Path) -> None:
    text = (COMPOSE / "prosody.cfg.lua").read_text()
    configuration = tmp_path / "prosody.cfg.lua"
    places = {"/usr/local/lib/prosody/modules": ROOT / "contrib" / "prosody", "/var/lib/prosody": tmp_path}
    for there, here in (places | {"/tmp/prosody.pid": tmp_path / "pid"}).items():
        assert there in text
        text = text.replace(there, str(here))
    configuration.write_text(text)
    environment = {**os.environ, **FILLED_IN, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    command = ["prosodyctl", "--root", "--config", str(configuration), "check", "config"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "All checks passed" in done.stdout, done.stdout + done.stderr
