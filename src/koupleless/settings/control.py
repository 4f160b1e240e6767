"""The settings of a module controller, ``arkctl controller``."""

# ruff: noqa: RUF009 - `setting` returns a dataclass field, which ruff cannot see

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from koupleless.errors import SettingsError
from koupleless.settings.reading import Sources, find_table, flatten, keys_of, read_token, setting
from koupleless.settings.values import Count, FilePath, Flag, Port, Seconds, Text, Texts

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """A controller. Table ``[tool.koupleless.controller]``; environment ``KOUPLELESS_CONTROLLER_...``.

    The variables of the original controller are read, too.
    """

    env: Text = setting("dev", variables=("ENV",))
    """The env of the bases and modules of this controller: part of the names of Nodes, without dots."""
    name: Text | None = setting(None, variables=("CLIENT_ID",))
    """The name of this controller among others, in Leases; ``None`` means the name of the host, as of a Pod."""
    host: Text = setting("127.0.0.1")
    """The address to hear bases on. Any other than a loopback address needs a token."""
    port: Port = setting(7777, variables=("HTTP_TUNNEL_LISTEN_PORT",))
    """The port to hear bases on."""
    probes_port: Port = setting(8081)
    """The port of ``/healthz``, ``/readyz`` and ``/metrics``."""
    token: Text | None = setting(None, is_secret=True)
    """The token that bases have to show. Never read from a table."""
    token_file: FilePath | None = setting(None)
    """A file with this token in the first line, read again while the controller runs."""
    accounts: Texts = setting(())
    """Service accounts of bases, ``namespace/name`` or ``namespace/*``: their tokens are judged by the API server."""
    audience: Text = setting("koupleless")
    """The audience of these tokens."""
    insecure: Flag = setting(False)
    """Whether to hear everybody on any address without a token."""
    ssl_certfile: FilePath | None = setting(None)
    """A certificate: bases send to ``https``."""
    ssl_keyfile: FilePath | None = setting(None)
    """The private key of the certificate, unless the file of the certificate has the key, too."""
    arklet_token: Text | None = setting(None, variables=("KOUPLELESS_ARKLET_TOKEN",), is_secret=True)
    """The token for the arklets of bases. Never read from a table."""
    arklet_token_file: FilePath | None = setting(None, variables=("KOUPLELESS_ARKLET_TOKEN_FILE",))
    """A file with this token in the first line, read again while the controller runs."""
    arklet_secret: Text | None = setting(None)
    """A Secret with the token of an arklet, ``namespace/name``, with ``{identity}``, ``{name}`` or ``{cluster}``."""
    arklet_ca: FilePath | None = setting(None)
    """Issuers of the certificates of arklets; with such a file arklets are called over TLS."""
    http_tunnel: Flag = setting(True, variables=("ENABLE_HTTP_TUNNEL",))
    """Whether bases are heard over HTTP."""
    mqtt_tunnel: Flag | None = setting(None, variables=("ENABLE_MQTT_TUNNEL",))
    """Whether bases are heard through a broker; ``None`` means, if there is one."""
    mqtt_broker: Text | None = setting(None, variables=("MQTT_BROKER",))
    """The host of an MQTT broker between bases and controllers."""
    mqtt_port: Port | None = setting(None, variables=("MQTT_PORT",))
    """The port of the broker; ``None`` means 1883, or 8883 with TLS."""
    mqtt_username: Text | None = setting(None, variables=("MQTT_USERNAME",))
    """The name for the broker."""
    mqtt_password: Text | None = setting(None, variables=("MQTT_PASSWORD",), is_secret=True)
    """The password for the broker. Never read from a table."""
    mqtt_password_file: FilePath | None = setting(None)
    """A file with this password in the first line, read again for each connect."""
    mqtt_client_prefix: Text = setting("koupleless", variables=("MQTT_CLIENT_PREFIX",))
    """The begin of the client's name at the broker, before the name of this controller."""
    mqtt_tls: Flag = setting(False)
    """Speak TLS without ``mqtt_ca_path``, and trust the issuers that the system trusts."""
    mqtt_ca_path: FilePath | None = setting(None, variables=("MQTT_CA_PATH",))
    """Issuers of the certificate of the broker; with issuers the connection speaks TLS."""
    mqtt_client_crt_path: FilePath | None = setting(None, variables=("MQTT_CLIENT_CRT_PATH",))
    """A certificate shown to the broker."""
    mqtt_client_key_path: FilePath | None = setting(None, variables=("MQTT_CLIENT_KEY_PATH",))
    """The key of this certificate, unless the file of the certificate has the key, too."""
    kubeconfig: FilePath | None = setting(None, variables=("KUBECONFIG",))
    """The way to the API server; ``None`` means that of the Pod in which the controller runs."""
    report_hooks: Text | None = setting(None, variables=("REPORT_HOOKS",), is_secret=True)
    """Addresses for reports of warnings, separated by ``;``. Never read from a table, because addresses have tokens."""
    report_hooks_file: FilePath | None = setting(None)
    """A file with such an address in each line."""
    remove_strays: Flag = setting(True)
    """Whether modules without a Pod are removed, such as those installed by hand."""
    keep_dead_nodes: Flag = setting(False)
    """Whether the Node of a dead base stays, not ready."""
    sync_replicas: Flag = setting(False, variables=("ENABLE_MODULE_REPLICAS_SYNC_WITH_BASE",))
    """Whether Deployments of peers get as many replicas as there are ready bases of their cluster."""
    kubelet: Flag = setting(False, variables=("KUBELET_PROXY_ENABLED",))
    """Whether the API of a kubelet is served: ``kubectl logs``, ``port-forward`` and ``exec`` for modules."""
    kubelet_address: Text | None = setting(None, variables=("POD_IP",))
    """The address by which the API server calls the kubelet's API: that of the Pod of the controller."""
    kubelet_host: Text | None = setting(None)
    """The address to listen on for that; ``None`` means ``kubelet_address``."""
    kubelet_port: Port = setting(10250, variables=("KUBELET_PROXY_PORT",))
    """The port to listen on for that, told to the API server, too."""
    kubelet_certfile: FilePath | None = setting(None)
    """The certificate of the kubelet's API; ``None`` means to request one of the cluster's signer."""
    kubelet_keyfile: FilePath | None = setting(None)
    """The private key of this certificate, unless the file of the certificate has the key, too."""
    kubelet_client_ca: FilePath | None = setting(None)
    """Issuers of the certificates of clients; ``None`` means those that the API server publishes."""
    workers: Count = setting(16, variables=("VNODE_WORKER_NUM",))
    """The number of bases worked on at a time."""
    at_once: Count = setting(8)
    """The greatest number of operations on one base at a time."""
    install_timeout_s: Seconds = setting(300.0)
    """How long an install may take."""
    list_every_s: Seconds = setting(15.0)
    """The pause between two questions for the modules of a base."""
    health_every_s: Seconds = setting(10.0)
    """The pause between two questions for the health of a base."""

    @property
    def holder(self) -> str:
        """The name of this controller."""
        return self.name or socket.gethostname()

    def read_kubelet_address(self) -> str | None:
        """The address of the kubelet's API; ``None`` if the API is off. Raises ``SettingsError`` without an address."""
        if not self.kubelet:
            return None
        if not self.kubelet_address:
            raise SettingsError(
                "kubelet is true, and the address for the API server is missing: set kubelet-address, or the variable "
                "POD_IP to the field status.podIP of the Pod"
            )
        return self.kubelet_address

    @property
    def has_broker(self) -> bool:
        """Whether a broker is used. Raises ``SettingsError`` without a tunnel, and for a tunnel without a broker."""
        if self.mqtt_tunnel and self.mqtt_broker is None:
            raise SettingsError("mqtt-tunnel is true, and mqtt-broker names no broker")
        found = self.mqtt_broker is not None and self.mqtt_tunnel is not False
        if not (found or self.http_tunnel):
            raise SettingsError("no base can be heard: http-tunnel is false, and there is no mqtt-broker")
        return found

    def read_mqtt_password(self) -> str | None:
        """The password for the broker. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.mqtt_password, self.mqtt_password_file, "controller mqtt-password-file")

    def read_token(self) -> str | None:
        """The token of bases. Raises ``SettingsError`` for an unusable file, and for an open door without a token."""
        token = read_token(self.token, self.token_file, "controller token-file")
        if (
            self.http_tunnel
            and token is None
            and not self.accounts
            and self.host not in _LOOPBACK
            and not self.insecure
        ):
            raise SettingsError(
                f"host = {self.host!r} lets everybody announce bases: set a token (token-file), the service accounts "
                "of bases (accounts), or --insecure if the network keeps strangers out"
            )
        return token

    def read_report_hooks(self) -> list[str]:
        """The addresses for reports. Raises ``SettingsError`` for an unusable file."""
        found = self.report_hooks or ""
        if self.report_hooks_file is not None:
            try:
                found += "\n" + self.report_hooks_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(
                    f"controller report-hooks-file: {self.report_hooks_file} cannot be read: {error}"
                ) from None
        return found.replace(";", " ").split()

    def read_arklet_token(self) -> str | None:
        """The token for arklets. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.arklet_token, self.arklet_token_file, "controller arklet-token-file")


def load_control(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    file: Path | None = None,
) -> ControlSettings:
    """Read the settings of a controller from flags, environment and files. Raises ``SettingsError``.

    ``flags`` are by field name; ``None`` means not given. ``file`` is read instead of the ``koupleless.toml`` or
    ``pyproject.toml`` in ``directory`` (the current one).
    """
    directory = directory or Path.cwd()
    table, origin = find_table(directory, file, "controller")
    sources = Sources(
        flags={key: value for key, value in (flags or {}).items() if value is not None},
        environ=os.environ if environ is None else environ,
        prefix="KOUPLELESS_CONTROLLER_",
        tables=((dict(flatten(table)), origin),),
        directory=directory,
    )
    sources.refuse_unknown(keys_of(ControlSettings))
    return ControlSettings(**sources.read(ControlSettings))
