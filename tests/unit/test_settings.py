import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from media_gallery.quantities import parse_bytes, parse_seconds
from media_gallery.settings import Settings, load_settings


def read_by(parse: Callable[[Any], Any]) -> list[str]:
    """The settings whose values this function parses."""
    fields = Settings.model_fields.items()
    return [name for name, field in fields if any(getattr(note, "func", None) is parse for note in field.metadata)]


TIMES, SIZES = read_by(parse_seconds), read_by(parse_bytes)
NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation is int and name not in SIZES]


def test_defaults_are_valid() -> None:
    settings = load_settings()
    assert settings.default_quota == 1024**3
    assert settings.database_path == settings.data_dir / "gallery.sqlite"
    assert settings.worker_count >= 1


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("10.0.0.0:80", "http://10.0.0.0:80"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:81", "http://[::1]:81"),
        (":::81", "http://[::1]:81"),
        ("[2001:db8::1]:81", "http://[2001:db8::1]:81"),
    ],
)
def test_clients_of_a_trial_reach_the_service_where_it_listens(
    listen: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA_GALLERY_LISTEN", listen)
    assert load_settings().public_url == url
    monkeypatch.setenv("MEDIA_GALLERY_PUBLIC_URL", "https://gallery.example.org/")
    assert load_settings().public_url == "https://gallery.example.org"


def test_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gallery.toml"
    config.write_text('default_quota = "5 GiB"\ncode_lifetime = "2 min"\nadmins = ["Anna@Example.org"]\n')
    monkeypatch.setenv("MEDIA_GALLERY_CODE_LIFETIME", "30")
    settings = load_settings(config)
    assert settings.default_quota == 5 * 1024**3
    assert settings.code_lifetime == 30
    assert settings.admins == ["anna@example.org"]


def test_lists_come_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_GALLERY_ALLOWED_DOMAINS", "Example.org, müller.example")
    assert load_settings().allowed_domains == ["example.org", "müller.example"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "8080"),
        ("listen", "localhost:8080"),
        ("allowed_domains", "ex_ample..org"),
        ("cors_origins", "chat.example.com"),
        ("xmpp_ca_file", "/none.pem"),
        ("denied_domans", "evil.test"),
        ("public_url", "gallery.example.org"),
        ("default_quota", "a lot"),
        ("code_lifetime", "soon"),
        ("rate_upload", "often"),
        ("admins", "not a jid@"),
        ("database_url", "mysql://x"),
        ("xmpp_jid", "gallery@example.org"),
        ("workers", "-1"),
        ("accel_prefix", "protected"),
        ("slot_secret", "x" * 31),
        ("slots", "true"),
        ("trusted_proxies", "127.0.0.1, nginx"),
        ("trusted_proxies", "10.0.0.0/99"),
        ("listen", "127.0.0.1:0"),
        ("listen", "127.0.0.1:65536"),
        ("public_url", "https://gallery example.org"),
        ("public_url", "https://gallery.example.org:99999"),
        ("public_url", "https://:443"),
        ("s3_endpoint", "https://["),
        ("database_url", "sqlite:///"),
        ("database_url", "postgresql://host:port/gallery"),
        ("database_url", "postgresql://[::1/gallery"),
        ("rates_url", "redis://"),
        ("rates_url", "redis://host:port/0"),
        ("rate_upload", "0/minute"),
        ("rate_upload", f"5/{10**20} day"),
        ("rate_upload", f"{10**20}/day"),
        ("rate_ipv6_prefix", "0"),
        ("decoder_memory", "1 MiB"),
        ("max_file_size", "0"),
        *((name, "0") for name in ("token_lifetime", "code_lifetime", "decoder_timeout", "idle_timeout", "s3_timeout")),
        *((name, "0") for name in ("code_tries", "uploads_at_once", "max_pixels")),
        *((name, str(10**12)) for name in TIMES),
        *((name, "9" * 400 + " days") for name in TIMES),
        *((name, str(2**63)) for name in SIZES),
        *((name, str(10**20)) for name in NUMBERS),
        *((name, "-1") for name in (*TIMES, *SIZES, *NUMBERS)),
    ],
)
def test_what_is_wrong_is_told(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MEDIA_GALLERY_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        load_settings()
    assert name in str(caught.value).lower()


@pytest.mark.parametrize(
    ("variable", "value", "package"),
    [("STORAGE_URL", "s3://bucket", "obstore"), ("RATES_URL", "redis://host", "redis")],
)
def test_a_package_that_is_missing_is_told(
    variable: str, value: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MEDIA_GALLERY_{variable}", value)
    load_settings()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValidationError, match=r"needs `pip install media-gallery\["):
        load_settings()


def test_unknown_key_in_file(tmp_path: Path) -> None:
    config = tmp_path / "gallery.toml"
    config.write_text("defualt_quota = 5\n")
    with pytest.raises(ValidationError):
        load_settings(config)


def test_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_GALLERY_XMPP_JID", "gallery@example.org")
    monkeypatch.setenv("MEDIA_GALLERY_XMPP_PASSWORD", "hunter2")
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("10 min", 600), ("12h", 43200), ("30 days", 2592000)])
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds
