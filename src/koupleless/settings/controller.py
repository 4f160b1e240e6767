"""The settings of the ways from a base to a controller, called tunnels in the field."""

# ruff: noqa: RUF009 - `setting` returns a dataclass field, which ruff cannot see

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from koupleless.errors import SettingsError
from koupleless.settings.reading import read_token, setting
from koupleless.settings.values import Endpoint, FilePath, Flag, Port, SecondsOrNone, Text, Texts

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """A controller told of the base over HTTP. Table ``arklet.controller``; ``KOUPLELESS_ARKLET_CONTROLLER_...``."""

    url: Endpoint | None = setting(
        None,
        properties={"koupleless.arklet.http.heartbeat.endpoint": None},
        variables=("MODULE_CONTROLLER_ADDRESS",),
    )
    """The address of the controller, ``http://host:port``, or ``host:port`` alone; ``None`` tells no controller."""
    token: Text | None = setting(None, is_secret=True)
    """A token sent to the controller, as ``Authorization: Bearer``. Never read from a table."""
    token_file: FilePath | None = setting(None)
    """A file with this token in the first line, read for each message: the token may change."""
    ca: FilePath | None = setting(None)
    """Issuers of the certificate of the controller, for ``https``; ``None`` means those that the system trusts."""
    baseline_timeout_s: SecondsOrNone = setting(3.0)
    """How long the start waits for the modules that the controller wants in the base; 0 means not to ask."""

    def read_token(self) -> str | None:
        """The token, from `token` or `token_file`. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.token, self.token_file, "arklet controller token-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSettings:
    """Callers judged by an API server. Table ``arklet.review``; environment ``KOUPLELESS_ARKLET_REVIEW_...``."""

    accounts: Texts = setting(())
    """Service accounts let in by tokens of their own, ``namespace/name`` or ``namespace/*``, such as a controller's."""
    audience: Text = setting("koupleless")
    """The audience of these tokens."""
    server: Endpoint | None = setting(None)
    """The address of the API server; ``None`` means that of the cluster in which the base runs."""
    ca: FilePath = setting(_ACCOUNT / "ca.crt")
    """Issuers of the certificate of the API server."""
    token_file: FilePath = setting(_ACCOUNT / "token")
    """A file with the token of the base for the API server, read for each question."""

    def read_token(self) -> str | None:
        """The token of the base. Raises ``SettingsError`` for an unusable file."""
        return read_token(None, self.token_file, "arklet review token-file")

    def address(self, environ: Mapping[str, str]) -> str:
        """The address of the API server, in ``environ`` if no other is set. Raises ``SettingsError`` without any."""
        if self.server is not None:
            return self.server
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise SettingsError("arklet.review.accounts is set outside a cluster: set arklet.review.server, too")
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """A broker between base and controllers. Table ``arklet.mqtt``; environment ``KOUPLELESS_ARKLET_MQTT_...``."""

    enable: Flag | None = setting(None, properties={"koupleless.arklet.mqtt.enable": None})
    """Whether the broker is used; ``None`` means, if there is one."""
    broker: Text | None = setting(None, properties={"koupleless.arklet.mqtt.broker": None})
    """The host of the broker."""
    port: Port | None = setting(None, properties={"koupleless.arklet.mqtt.port": None})
    """The port of the broker; ``None`` means 1883, or 8883 with TLS."""
    username: Text | None = setting(None, properties={"koupleless.arklet.mqtt.username": None})
    """The name for the broker."""
    password: Text | None = setting(None, properties={"koupleless.arklet.mqtt.password": None}, is_secret=True)
    """The password for the broker. Never read from a table, because tables are committed."""
    password_file: FilePath | None = setting(None)
    """A file with the password in the first line, read for each connect: the password may change."""
    client_prefix: Text = setting("koupleless", properties={"koupleless.arklet.mqtt.client.prefix": None})
    """The begin of the client's name, before the identity of the base."""
    tls: Flag = setting(False)
    """Speak TLS without ``ca_path``, and trust the issuers that the system trusts."""
    ca_path: FilePath | None = setting(None, properties={"koupleless.arklet.mqtt.ca_path": None})
    """Issuers of the certificate of the broker; with issuers the connection speaks TLS."""
    client_crt_path: FilePath | None = setting(None, properties={"koupleless.arklet.mqtt.client_crt_path": None})
    """A certificate shown to the broker."""
    client_key_path: FilePath | None = setting(None, properties={"koupleless.arklet.mqtt.client_key_path": None})
    """The key of this certificate, unless the file of the certificate has the key, too."""
    last_will: Flag = setting(False)
    """Whether the broker says that the base has ended as soon as the connection to the base breaks."""
    retained: Flag = setting(False)
    """Whether changes are made that the broker had kept, as in the original; they may be of a former life."""

    @property
    def is_on(self) -> bool:
        """Whether the broker is used. Raises ``SettingsError`` if there is none to use."""
        if self.enable and self.broker is None:
            raise SettingsError("arklet.mqtt.enable is true, and arklet.mqtt.broker names no broker")
        return self.broker is not None and self.enable is not False

    def read_password(self) -> str | None:
        """The password, from `password` or `password_file`. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.password, self.password_file, "arklet mqtt password-file")
