import pytest
from pydantic import ValidationError

from media_gallery.settings import load_settings, parse_seconds


def test_defaults_are_valid():
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
def test_clients_of_a_trial_reach_the_service_where_it_listens(listen, url, monkeypatch):
    monkeypatch.setenv("MEDIA_GALLERY_LISTEN", listen)
    assert load_settings().public_url == url
    monkeypatch.setenv("MEDIA_GALLERY_PUBLIC_URL", "https://gallery.example.org/")
    assert load_settings().public_url == "https://gallery.example.org"


def test_environment_over_file(tmp_path, monkeypatch):
    config = tmp_path / "gallery.toml"
    config.write_text('default_quota = "5 GiB"\ncode_lifetime = "2 min"\nadmins = ["Anna@Example.org"]\n')
    monkeypatch.setenv("MEDIA_GALLERY_CODE_LIFETIME", "30")
    settings = load_settings(config)
    assert settings.default_quota == 5 * 1024**3
    assert settings.code_lifetime == 30
    assert settings.admins == ["anna@example.org"]


def test_lists_come_comma_separated(monkeypatch):
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
        ("trusted_proxies", "127.0.0.1, nginx"),
    ],
)
def test_what_is_wrong_is_told(name, value, monkeypatch):
    monkeypatch.setenv(f"MEDIA_GALLERY_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        load_settings()
    assert name in str(caught.value).lower()


def test_unknown_key_in_file(tmp_path):
    config = tmp_path / "gallery.toml"
    config.write_text("defualt_quota = 5\n")
    with pytest.raises(ValidationError):
        load_settings(config)


def test_secrets_stay_secret(monkeypatch):
    monkeypatch.setenv("MEDIA_GALLERY_XMPP_JID", "gallery@example.org")
    monkeypatch.setenv("MEDIA_GALLERY_XMPP_PASSWORD", "hunter2")
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("10 min", 600), ("12h", 43200), ("30 days", 2592000)])
def test_times(text, seconds):
    assert parse_seconds(text) == seconds
