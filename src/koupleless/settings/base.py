"""The settings of a base and of the arklet in the base."""

# ruff: noqa: RUF009 - `setting` returns a dataclass field, which ruff cannot see

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from koupleless.errors import SettingsError
from koupleless.settings.controller import ControllerSettings, MqttSettings, ReviewSettings
from koupleless.settings.reading import Sources, find_table, flatten, keys_of, read_token, setting
from koupleless.settings.values import (
    Count,
    FilePath,
    Flag,
    InvertedFlag,
    Locations,
    LogFormat,
    LogLevel,
    Name,
    Number,
    OnBroken,
    Paths,
    Port,
    Seconds,
    SecondsOrNone,
    Tables,
    Text,
    Texts,
    Version,
)

UNNAMED: Final = "base"
"""The name of a base without a name of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArkletSettings:
    """The ops API of a base. Table ``arklet`` under the base's table; environment ``KOUPLELESS_ARKLET_...``."""

    host: Text = setting("127.0.0.1")
    """The address to listen on; any but loopback demands a token, or ``insecure``."""
    port: Port | None = setting(None, properties={"koupleless.arklet.http.port": None})
    """The port; ``None`` takes the first free one from 1238 to 1337, ``0`` any free one."""
    token: Text | None = setting(None, is_secret=True)
    """The token of callers, for ``Authorization: Bearer``. Never read from a table, because tables are committed."""
    token_file: FilePath | None = setting(None)
    """A file with the token in the first line, read again while the base runs."""
    metrics: Flag = setting(True)
    """Whether `GET /metrics` answers, and requests of modules are counted."""
    metrics_token: Text | None = setting(None, is_secret=True)
    """A token that lets callers read the metrics and nothing else. Never read from a table."""
    metrics_token_file: FilePath | None = setting(None)
    """A file with the token for the metrics in the first line."""
    exec: Flag = setting(False)
    """Whether callers with the token run Python code inside modules, in consoles; needs a token on any address."""
    insecure: Flag = setting(False)
    """Let strangers in on an address other than loopback; the original controller needs this."""
    allowed_hosts: Texts = setting(())
    """Further names for ``Host`` in requests to the arklet, next to the arklet's own addresses."""
    header_timeout_s: Seconds = setting(10.0)
    """How long a connection may be open without the headers of a request."""
    max_connections: Number = setting(64)
    """Most connections at once; the oldest connection without a request gives way to a new one."""
    ssl_certfile: FilePath | None = setting(None)
    """The certificate of the arklet, with those of its issuers; with a certificate the arklet speaks TLS."""
    ssl_keyfile: FilePath | None = setting(None)
    """The private key, unless the file of the certificate has the key, too."""
    ssl_keyfile_password: Text | None = setting(None, is_secret=True)
    """The password of the private key. Never read from a table, because tables are committed."""
    ssl_ca_certs: FilePath | None = setting(None)
    """Issuers of certificates which callers have to show; ``None`` asks for none."""
    identity: Text | None = setting(None)
    """The name of the base for a controller; ``None`` means the address."""
    local_ip: Text | None = setting(None)
    """The address for calls of a controller; ``None`` means the address in `host`, else the machine's."""
    service_port: Port | None = setting(None)
    """The port of the application for Services of modules; ``None`` means the port of ``arkctl serve``."""
    cluster: Text = setting("default")
    """The cluster the base belongs to."""
    environment: Text = setting("dev", properties={"koupleless.arklet.metadata.env": None})
    """The environment, which has to be the controller's; the default is the original controller's."""
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    """The controller that is told of the base over HTTP."""
    review: ReviewSettings = field(default_factory=ReviewSettings)
    """Callers judged by the API server of a cluster, beside those with the token."""
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    """The broker through which controllers are told over MQTT."""

    def read_token(self) -> str | None:
        """The token, from `token` or `token_file`. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.token, self.token_file, "arklet token-file")

    def has_consoles(self) -> bool:
        """Whether consoles are on. Raises ``SettingsError`` for consoles without a token."""
        if self.exec and self.read_token() is None:
            raise SettingsError(
                "arklet.exec lets callers run code inside modules, and needs a token on any address: set one "
                "(--arklet-token-file, KOUPLELESS_ARKLET_TOKEN)"
            )
        return self.exec

    def read_metrics_token(self) -> str | None:
        """The token for the metrics alone. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.metrics_token, self.metrics_token_file, "arklet metrics-token-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSettings:
    """A base. Table ``[tool.koupleless.base]``; environment ``KOUPLELESS_BASE_...``."""

    name: Name = setting(
        UNNAMED,
        properties={
            "com.alipay.sofa.ark.master.biz": None,
            "koupleless.arklet.metadata.name": None,
            "spring.application.name": None,
        },
    )
    """The name of the base, and so of the master biz."""
    version: Version = setting("1.0.0", properties={"koupleless.arklet.metadata.version": None})
    """The version of the base, and so of the master biz."""
    host: Text = setting("127.0.0.1")
    """The address the application is served on."""
    port: Port = setting(8080)
    """The port the application is served on; ``0`` takes any free one."""
    uds: FilePath | None = setting(None)
    """A Unix socket to serve the application on, instead of an address and a port."""
    root_path: Text | None = setting(None)
    """The path below which a proxy has the application, and which the proxy leaves out of requests."""
    proxy_headers: Flag = setting(True)
    """Whether the address of the client and the scheme are those named by a trusted proxy (``X-Forwarded-...``)."""
    forwarded_allow_ips: Text | None = setting(None)
    """Trusted proxies: addresses and networks with commas, or ``*``; ``None`` means this machine."""
    ssl_certfile: FilePath | None = setting(None)
    """The certificate of the application, with those of its issuers; with a certificate the application speaks TLS."""
    ssl_keyfile: FilePath | None = setting(None)
    """The private key, unless the file of the certificate has the key, too."""
    ssl_keyfile_password: Text | None = setting(None, is_secret=True)
    """The password of the private key. Never read from a table, because tables are committed."""
    ssl_ca_certs: FilePath | None = setting(None)
    """Issuers of certificates which clients have to show; ``None`` asks for none."""
    modules: Locations = setting(())
    """Static modules: projects, artefacts or URLs, installed in this order before the base serves."""
    on_broken: OnBroken = setting("refuse")
    """Whether the base refuses to start, or serves on without a static module that does not start."""
    own: Texts = setting(())
    """Libraries held by modules as own copies, unless a module says otherwise."""
    shared: Texts = setting(())
    """Libraries shared with modules, unless a module says otherwise."""
    modules_dir: FilePath | None = setting(None, properties={"com.alipay.sofa.ark.static.biz.dir": None})
    """A directory with further static modules, as artefacts."""
    config_dirs: Paths = setting((Path("config"),))
    """Where the configuration of modules lies, strongest first: ``<dir>/<bizName>/application.toml`` and the like."""
    log_dir: FilePath | None = setting(None, properties={"logging.file.path": None, "logging.path": None})
    """The parent of the directories for the logs of modules, by name, or ``-`` for none; ``None`` means ``logs`` under
    ``arkctl serve``, and none in another server."""
    log_level: LogLevel | None = setting(None)
    """The level of the base, and of modules that configure no logging; ``None`` means ``INFO`` under ``arkctl serve``,
    and in another server the level set there."""
    log_format: LogFormat = setting("text")
    """The form of lines, in files as on stderr: ``text``, or ``json`` for one object a line."""
    log_size: Number = setting(10 << 20)
    """The size in bytes at which a log becomes an older one."""
    log_keep: Count = setting(5)
    """The number of older logs kept beside each log."""
    log_config: FilePath | None = setting(None)
    """A file that configures the logging of the base (JSON, YAML, or the INI form of Python), for ``arkctl serve``."""
    access_log: Flag = setting(True)
    """Whether each request has a line in the log."""
    data_dir: FilePath = setting(Path("data"))
    """The parent of the modules' data directories, one for each name, kept for later versions."""
    state_dir: FilePath | None = setting(None)
    """Where the base keeps its modules over a restart; ``None`` means nowhere inside another server, and a directory by
    the name of the base for ``arkctl serve``."""
    ephemeral: Flag = setting(False)
    """Keep nothing over a restart, whatever ``state-dir`` says."""
    store_dir: FilePath | None = setting(None, properties={"com.alipay.sofa.ark.biz.dir": None})
    """Where artefacts are unpacked, by content; ``None`` means ``store`` in the state directory, else a temporary
    directory that leaves with the base."""
    store_keep: Number = setting(20)
    """The number of unpacked artefacts without a user kept in the store when the base starts."""
    store_age_s: Seconds | None = setting(None)
    """How long an unpacked artefact without a user is kept in the store; ``None`` sets no limit."""
    store_size: Number | None = setting(None)
    """The size in megabytes beyond which unpacked artefacts without a user leave the store; ``None`` sets no limit."""
    shared_keys: Texts = setting((), properties={"ark.common.env.share.keys": None})
    """Keys of the base's configuration seen by modules, too, as the weakest source."""
    profile: Text | None = setting(None, properties={"spring.profiles.active": None})
    """The active configuration profile."""
    start_timeout_s: Seconds = setting(60.0)
    """How long a module may take to start."""
    drain_timeout_s: Seconds = setting(30.0)
    """How long a leaving module may take to finish requests, and calls of the module's services, in flight."""
    stop_timeout_s: Seconds = setting(10.0)
    """How long a leaving module may take for its own shutdown."""
    silence_before_uninstall_s: SecondsOrNone = setting(
        0.0, properties={"com.alipay.sofa.koupleless.runtime.operation.silenceSecondsBeforeUninstall": None}
    )
    """How long a module serves on after the decision to uninstall, while probes say that the module is leaving."""
    ready_with_modules: Flag = setting(
        False, properties={"koupleless.healthcheck.base.readiness.withAllBizReadiness": None}
    )
    """Whether the base is ready only when all modules are."""
    block_warning_s: SecondsOrNone = setting(1.0)
    """How long the event loop may be held by code of a module until the log names the module; 0 means never."""
    end_threads: Flag = setting(True)
    """Whether threads of a leaving module are interrupted if asking was in vain; else left running and reported."""
    activate_new: Flag = setting(False, properties={"activate.new.module": None})
    """A newly installed version takes over at once instead of waiting for a switch."""
    activate_many: Flag = setting(False, properties={"sofa.ark.activate.multi.biz.version.enable": None})
    """Several versions of one name may be active, each on a separate path. A new version on a used path takes the path
    over, and gives the path back when uninstalled."""
    activate_next: Flag = setting(False)
    """When the active version is uninstalled, the remaining version installed last takes over."""
    keep_broken: Flag = setting(False, properties={"sofa.ark.auto.uninstall.when.failed.enable": InvertedFlag})
    """A module that failed to start stays listed as broken; the original's property means the opposite."""
    fetch_timeout_s: Seconds = setting(60.0)
    """How long a download of an artefact may take."""
    allowed_sources: Texts = setting(())
    """URL prefixes allowed for artefacts; empty allows every location."""
    pull_secrets: Text | None = setting(None, is_secret=True)
    """The content of such a file itself. Never read from a table."""
    pull_secrets_file: FilePath | None = setting(None)
    """A file with the credentials of hosts of artefacts, in the form of docker's ``config.json``."""
    header_timeout_s: Seconds = setting(10.0)
    """How long a connection to the application may be open without the headers of a request."""
    max_connections: Number | None = setting(None)
    """How many there may be at once; ``None`` means half as many as the process may have file descriptors."""
    forwards: Tables = setting((), properties={"koupleless.web.gateway.forwards": None})
    """The gateway's forward rules: tables of ``contextPath``, ``hosts`` and ``paths`` of ``from`` and ``to``."""
    arklet: ArkletSettings = field(default_factory=ArkletSettings)
    """The ops API."""

    @property
    def store_bytes(self) -> int | None:
        """The limit of `store_size` in bytes."""
        return None if self.store_size is None else self.store_size * 1_000_000


def load_base(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    file: Path | None = None,
) -> BaseSettings:
    """Read the settings of a base from flags, environment and files. Raises ``SettingsError``.

    ``flags`` are by field name, those of the arklet with ``arklet_`` in front; ``None`` means not given. ``file``
    is read instead of the ``koupleless.toml`` or ``pyproject.toml`` in ``directory`` (the current one).
    """
    directory = directory or Path.cwd()
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    table, origin = find_table(directory, file, "base")
    sources = Sources(
        flags={key: value for key, value in given.items() if not key.startswith("arklet_")},
        environ=os.environ if environ is None else environ,
        prefix="KOUPLELESS_BASE_",
        tables=((dict(flatten(table)), origin),),
        directory=directory,
    )
    of_arklet = _part(sources, given, "arklet")
    of_controller = _part(sources, given, "arklet", "controller")
    of_mqtt = _part(sources, given, "arklet", "mqtt")
    of_review = _part(sources, given, "arklet", "review")
    sources.refuse_unknown(
        {
            **keys_of(BaseSettings),
            **keys_of(ArkletSettings, "arklet."),
            **keys_of(ControllerSettings, "arklet.controller."),
            **keys_of(MqttSettings, "arklet.mqtt."),
            **keys_of(ReviewSettings, "arklet.review."),
        }
    )
    arklet = ArkletSettings(
        **of_arklet.read(ArkletSettings),
        controller=ControllerSettings(**of_controller.read(ControllerSettings)),
        mqtt=MqttSettings(**of_mqtt.read(MqttSettings)),
        review=ReviewSettings(**of_review.read(ReviewSettings)),
    )
    return BaseSettings(**sources.read(BaseSettings), arklet=arklet)


_PARTS: Final = ("arklet_controller_", "arklet_mqtt_", "arklet_review_", "arklet_")
"""The prefixes of flags of the groups below a base, the longer ones first."""


def _part(sources: Sources, flags: Mapping[str, object], *names: str) -> Sources:
    """The sources of a group below the base's."""
    prefix = f"{'_'.join(names)}_"
    return replace(
        sources,
        flags={
            key.removeprefix(prefix): value
            for key, value in flags.items()
            if next((each for each in _PARTS if key.startswith(each)), "") == prefix
        },
        prefix=f"KOUPLELESS_{prefix.upper()}",
        under=f"{'.'.join(names)}.",
    )
