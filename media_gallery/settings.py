"""Settings: environment variables `MEDIA_GALLERY_*`, which override an optional TOML file; validated at start."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from media_gallery.models import Jid
from media_gallery.setting_types import (
    AccountJids,
    Bytes,
    Certificates,
    Choice,
    Domains,
    Jids,
    JidText,
    Listen,
    LongSecret,
    Networks,
    Number,
    Origins,
    PathPrefix,
    Rate,
    Seconds,
    Url,
    is_address,
    is_loopback,
    is_url,
    own_url,
    parse_listen,
    port_of,
)

PREFIX = "MEDIA_GALLERY_"
OWN_VARIABLES = frozenset(["CONFIG", "COURIER"])
"""Variables with this prefix that are no settings: the settings file, and what the service tells its processes."""
NO_FILE = Path(os.devnull)
"""Named as the settings file, it means that there is none."""


LogLevel = Annotated[Literal["debug", "info", "warning", "error"], Choice]


class Settings(BaseSettings):
    """Everything an operator can set. A field's description is its row in the documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
    )
    config_file: ClassVar[Path | None] = None

    data_dir: Path = Field(Path("data"), description="Where everything is kept: the database, files, thumbnails")
    listen: Listen = Field("127.0.0.1:8080", description="Address to listen on, `host:port`")
    public_url: Url = Field(
        "",
        description="The address clients reach the service at, without a slash at its end; empty: `http://` and"
        " `LISTEN`, for a trial on one machine",
    )
    database_url: str = Field(
        "",
        description="Database; empty: SQLite in the data directory. `postgresql://user:password@host/database`,"
        " `sqlite:///path/to/file`",
    )
    storage_url: str = Field(
        "",
        description="Where files are kept; empty: in the data directory. `s3://bucket/prefix`: in a bucket; uploads"
        " are staged in the data directory first (`pip install media-gallery[s3]`)",
    )
    s3_endpoint: Url = Field("", description="Address of the S3 store, such as `https://s3.example.org`; empty: AWS")
    s3_region: str = Field("us-east-1", description="Its region")
    s3_access_key_id: str = Field("", description="Key of the S3 account; empty: as AWS tools find it")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Its secret")
    s3_timeout: Seconds = Field(
        20,
        ge=1,
        description="How long the S3 store may be silent before it counts as away; a part of 5 MiB may take 40"
        " seconds longer",
    )
    s3_delivery: Annotated[Literal["through", "redirect"], Choice] = Field(
        "through", description="Downloads pass `through` the service, or clients get a `redirect` to the S3 store"
    )
    s3_public_endpoint: Url = Field("", description="Address of the S3 store in redirects; empty: `S3_ENDPOINT`")
    s3_url_lifetime: Seconds = Field(
        900,
        ge=1,
        le=604800,
        description="How long a redirect's address works, also for a file that is deleted meanwhile",
    )
    admins: AccountJids = Field([], description="JIDs of administrators, separated by commas")
    admins_see_files: bool = Field(
        False, description="Whether administrators may list the files of every account; each look is logged"
    )
    default_quota: Bytes = Field(1024**3, description="Quota of an account that has none of its own")
    files_per_account: Number = Field(
        100_000, ge=1, description="Most files that an account may have, whatever their size; another one gets `403`"
    )
    max_file_size: Bytes = Field(1024**3, ge=1, description="Size of the largest file that is taken")
    small_file_size: Bytes = Field(
        16 * 1024,
        le=256 * 1024,
        description="New files up to this size are kept in the database, which is faster; 256 KiB at most; 0: none",
    )
    token_lifetime: Seconds = Field(30 * 86400, ge=1, description="How long a token is valid")
    code_lifetime: Seconds = Field(600, ge=1, description="How long a one-time code is valid")
    code_tries: Number = Field(
        5,
        ge=1,
        description="Wrong tries after which a code is void; addresses that neither asked for one nor have signed in"
        " may use up two fifths of them",
    )
    code_pause: Seconds = Field(
        60,
        description="How long an address that made a code void waits for the next one of that JID; twice as long"
        " after each further one within a day; 0: not at all",
    )
    allowed_domains: Domains = Field(
        [], description="Domains whose users may sign in, and get slots; empty: all may sign in"
    )
    denied_domains: Domains = Field([], description="Domains whose users may not sign in")
    allowed_jids: Jids = Field([], description="JIDs that may sign in, whatever the lists of domains say")
    denied_jids: Jids = Field([], description="JIDs that may not sign in")
    cors_origins: Origins = Field(["*"], description="Origins allowed to call the service from a browser; `*`: any")
    trusted_proxies: Networks = Field(
        ["127.0.0.1", "::1"], description="Addresses or networks whose `Forwarded` and `X-Forwarded-For` are believed"
    )
    web_page: bool = Field(
        True, description="Whether the service has a page for people at `/`, to see and clear what they have stored"
    )
    accel_prefix: PathPrefix = Field(
        "",
        description="Path such as `/protected` under which nginx in front sends the files of the data directory by"
        " itself (`X-Accel-Redirect`, docs/operating.md), so that the directory's group may read them; empty: the"
        " service sends them, and nobody else may read them",
    )

    xmpp_jid: JidText = Field(
        "", description="The service's JID: a client account, or the component's domain; empty: development mode"
    )
    xmpp_password: SecretStr = Field(SecretStr(""), description="Password of the client account")
    xmpp_host: str = Field("", description="Server of the client account, if DNS does not name it")
    xmpp_port: int = Field(5222, ge=1, le=65535, description="Its port, used with `XMPP_HOST`")
    xmpp_tls: Annotated[Literal["required", "off"], Choice] = Field(
        "required", description="STARTTLS with a checked certificate, or `off` (loopback only)"
    )
    xmpp_ca_file: Certificates = Field(
        None, description="Certificates to trust for the XMPP server, in PEM; empty: the system's"
    )
    xmpp_component_host: str = Field("127.0.0.1", description="XMPP server that takes the component (XEP-0114)")
    xmpp_component_port: int = Field(5347, ge=1, le=65535, description="Its component port")
    xmpp_component_secret: SecretStr = Field(
        SecretStr(""), description="Shared secret; setting it makes the service a component"
    )
    slots: bool = Field(
        False,
        description="`true`: as a component, take uploads by XEP-0363 from any client of the hosts served; switch other"
        " upload services of the server off, since clients take any one",
    )
    slot_domains: Domains = Field(
        [],
        description="Domains whose users get slots of XEP-0363; empty: `ALLOWED_DOMAINS`, or if that is empty, too, the"
        " domain above the component's (`example.org` for `upload.example.org`)",
    )
    slot_secret: LongSecret = Field(
        SecretStr(""),
        description="Secret by which the slots of XEP-0363 are signed, 32 characters at least: the same as"
        " `http_file_share_secret` of a Prosody that gives out slots of this service; empty: one that the service makes"
        " and keeps in its database",
    )

    prosody_upload_secret: LongSecret = Field(
        SecretStr(""),
        description="The same as `http_upload_external_secret` of Prosody's `mod_http_upload_external`, to take the"
        " uploads to its slots; 32 characters at least; empty: none",
    )
    prosody_upload_owner: str = Field(
        "", description="JID of the account that gets those uploads, since that module does not tell who uploads"
    )
    ejabberd_upload_secret: LongSecret = Field(
        SecretStr(""),
        description="The same as `external_secret` of ejabberd's `mod_http_upload`, to take the uploads to its slots;"
        " 32 characters at least; empty: none",
    )
    slot_service_secret: LongSecret = Field(
        SecretStr(""),
        description="Part of the address at which ejabberd's `mod_http_upload` may ask for slots (`service_url`); 32"
        " characters at least; empty: it may not",
    )
    ephemeral_lifetime: Seconds = Field(
        30 * 86400, ge=1, description="How long a file is kept at most that a client uploads as ephemeral (XEP-0363)"
    )

    rates_url: str = Field(
        "",
        description="Where rates are counted; empty: in a file, for one host. `redis://host:6379/0` for several hosts"
        " (`pip install media-gallery[redis]`)",
    )
    rate_upload: Rate = Field("120/minute", description="Uploads per account; `none`: no limit")
    uploads_at_once: Number = Field(
        32, ge=1, description="Uploads of one account that a host takes at once; another one gets `429`"
    )
    rate_slot: Rate = Field("600/minute", description="Slot requests per account")
    rate_code_request_jid: Rate = Field(
        "5/10 minute; 10/day",
        description="Code requests per JID; each address that has signed in to it counts by itself",
    )
    rate_code_request_jid_address: Rate = Field(
        "3/10 minute; 6/day",
        description="How many of these one client address may use that has not signed in to the JID, so that"
        " nobody keeps its owner out",
    )
    rate_code_request_address: Rate = Field("20/10 minute; 100/day", description="Code requests per client address")
    rate_ipv6_prefix: int = Field(
        64,
        ge=16,
        le=128,
        description="IPv6 addresses that have so many first bits in common count as one client address",
    )
    rate_code_try_jid: Rate = Field(
        "15/10 minute; 60/day",
        description="Code tries per JID; each address that asked for a code or has signed in counts by itself",
    )
    rate_code_try_address: Rate = Field("60/10 minute; 200/day", description="Code tries per client address")

    workers: int = Field(0, ge=0, le=256, description="Web worker processes; 0: one per processor core")
    decoders: int = Field(
        0, ge=0, le=256, description="Image and film decoders per worker; 0: cores divided by workers"
    )
    decoder_timeout: Seconds = Field(20, ge=1, description="Longest time one image or film may take to decode")
    thumbnail_wait: Seconds = Field(
        2,
        description="How long the answer to an upload waits for its thumbnail; if that takes longer, the thumbnail's"
        " address waits",
    )
    decoder_memory: Bytes = Field(
        1024**3, ge=64 * 1024**2, description="Most memory one decoder may take for a job; 64 MiB at least"
    )
    max_pixels: Number = Field(
        200_000_000,
        ge=1,
        description="Most pixels decoded of an image; a JPEG may have more, since it is decoded at a smaller size",
    )
    idle_timeout: Seconds = Field(
        30,
        ge=1,
        description="A client that sends nothing for so long while uploading gets `408`; a connection whose request's"
        " head takes longer is closed",
    )
    min_upload_rate: Bytes = Field(
        500,
        description="Bytes a second that a body must bring, averaged over `IDLE_TIMEOUT`, or it gets `408`; 0:"
        " no limit",
    )
    linger_time: Seconds = Field(
        60,
        description="How long the rest of a refused request is read and thrown away, so that its client gets the"
        " answer instead of a broken connection",
    )
    linger_size: Bytes = Field(128 * 1024**2, description="How much of it is read at most")
    stop_timeout: Seconds = Field(60, description="How long running requests may go on after a stop signal")
    min_free_space: Bytes = Field(
        64 * 1024**2,
        description="Uploads get `507` while the file system of the data directory has less free, since deleting takes"
        " some space, too; 0: only when nothing is free",
    )
    gc_grace: Seconds = Field(
        3600,
        description="Unfinished uploads, and bytes that no row names, are removed when they have not been touched for"
        " so long; an hour at least while the service runs",
    )
    log_format: Annotated[Literal["text", "json"], Choice] = Field(
        "text", description="Log lines for people or for programs"
    )
    log_address: Annotated[Literal["full", "shortened", "none"], Choice] = Field(
        "shortened",
        description="The client's address in the log line of a request: `full`, such as for fail2ban, `shortened` to"
        " its network (IPv4 /24, IPv6 /48), or `none`",
    )
    log_level: LogLevel = Field("info", description="Level of the least important lines that are logged")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Any,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = [TomlConfigSettingsSource(settings_cls, cls.config_file)] if cls.config_file else []
        return (init_settings, env_settings, *toml)

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.xmpp_jid:
            if not self.xmpp_component_secret.get_secret_value() and not self.xmpp_password.get_secret_value():
                raise ValueError("XMPP_JID needs XMPP_PASSWORD (client account) or XMPP_COMPONENT_SECRET (component)")
        elif self.xmpp_component_secret.get_secret_value() or self.xmpp_password.get_secret_value():
            raise ValueError("XMPP_PASSWORD and XMPP_COMPONENT_SECRET need XMPP_JID")
        if self.slots and not self.xmpp_component_secret.get_secret_value():
            raise ValueError("SLOTS needs XMPP_COMPONENT_SECRET: clients ask a component for slots, no client account")
        if self.database_url and not self.database_url.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("DATABASE_URL must start with sqlite:/// or postgresql://")
        if self.database_url.startswith("postgresql://") and not is_address(self.database_url):
            raise ValueError("DATABASE_URL must be like postgresql://user:password@host:5432/database")
        if self.database_url == "sqlite:///":
            raise ValueError("DATABASE_URL must name a file behind sqlite:///")
        if self.storage_url and not re.fullmatch(r"s3://[^/?#]+(/[^?#]*)?", self.storage_url):
            raise ValueError("STORAGE_URL must be like s3://bucket or s3://bucket/prefix")
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key.get_secret_value()):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together")
        if self.rates_url and not is_url(self.rates_url, "redis", "rediss"):
            raise ValueError("RATES_URL must be like redis://host:6379/0 or rediss://host:6379/0")
        for value, package, extra in ((self.storage_url, "obstore", "s3"), (self.rates_url, "redis", "redis")):
            if value and not find_spec(package):
                raise ValueError(f"{value.partition(':')[0]}:// needs `pip install media-gallery[{extra}]`")
        self.public_url = self.public_url or own_url(self.listen)
        return self

    def warnings(self) -> list[str]:
        """What is allowed, but probably not meant."""
        told = []
        host, port = urlsplit(self.public_url).hostname or "", port_of(self.public_url)
        ip, listens = parse_listen(self.listen)
        if self.xmpp_jid and not self.allowed_domains:
            told.append("ALLOWED_DOMAINS is empty: users of every XMPP server may sign in, each with DEFAULT_QUOTA")
        if self.xmpp_jid and is_loopback(host):
            told.append(f"PUBLIC_URL is {self.public_url}: links work on this machine alone")
        if (is_loopback(host) or host == str(ip)) and port != listens:
            told.append(
                f"PUBLIC_URL names port {port} of this machine, LISTEN port {listens}: is a proxy between them?"
            )
        elif self.public_url.startswith("https:") and port == listens:
            told.append(f"PUBLIC_URL asks for TLS at port {port}, but LISTEN has no TLS: put a proxy in front")
        return told

    @property
    def address(self) -> tuple[str, int]:
        """IP address and port to listen on."""
        ip, port = parse_listen(self.listen)
        return str(ip), port

    @property
    def slot_hosts(self) -> list[str]:
        """Domains whose users get slots."""
        return self.slot_domains or self.allowed_domains or [Jid.parse(self.xmpp_jid).domain.partition(".")[2]]

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url:
            return Path(self.database_url.removeprefix("sqlite:///"))
        return self.data_dir / "gallery.sqlite"

    @property
    def umask(self) -> int:
        """What new files and directories deny: all to others; to the group, too, unless a web server sends them."""
        return 0o027 if self.accel_prefix else 0o077

    @property
    def worker_count(self) -> int:
        return self.workers or os.cpu_count() or 1

    @property
    def decoder_count(self) -> int:
        return self.decoders or max(1, (os.cpu_count() or 1) // self.worker_count)

    @property
    def api_url(self) -> str:
        """The address that discovery tells clients; they append `v1/files/` to it."""
        return f"{self.public_url}/api/"


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Settings from the environment and `config` (TOML).

    Raises pydantic's ValidationError; OSError if the file cannot be read, ValueError if it is no TOML.
    """
    if config is not None and config != NO_FILE and not config.is_file():
        raise FileNotFoundError(f"there is no settings file {config}")
    chosen: type[Settings] = type("Settings", (Settings,), {"config_file": config}) if config else Settings
    try:
        return chosen(**_mistyped(), **overrides)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{config}: {error}") from None


def _mistyped() -> dict[str, Any]:
    """Variables that look like settings and are none: they are refused, since they may be a mistyped deny list."""
    typed = {name.upper() for name in os.environ}  # as pydantic takes them, too
    names = {name.removeprefix(PREFIX) for name in typed if name.startswith(PREFIX)} - OWN_VARIABLES
    return {name.lower(): "" for name in names if name.lower() not in Settings.model_fields}
