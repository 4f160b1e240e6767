"""The settings of ``arkctl``."""

# ruff: noqa: RUF009 - `setting` returns a dataclass field, which ruff cannot see

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.errors import SettingsError
from koupleless.settings.reading import (
    FIRST_ARKLET_PORT,
    Origin,
    Sources,
    find_table,
    flatten,
    keys_of,
    read_token,
    read_toml,
    setting,
)
from koupleless.settings.values import FilePath, Flag, Output, Port, Seconds, Text

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Settings of ``arkctl``. Table ``[tool.koupleless.arkctl]``; environment ``ARKCTL_...``."""

    host: Text = setting("127.0.0.1")
    """The host of the arklet."""
    port: Port = setting(FIRST_ARKLET_PORT)
    """The port of the arklet."""
    timeout_s: Seconds = setting(120.0)
    """How long one command may take altogether, in seconds; the key is ``timeout``."""
    output: Output = setting("table")
    """``table``, ``wide`` or ``json``."""
    token: Text | None = setting(None, variables=("KOUPLELESS_ARKLET_TOKEN",), is_secret=True)
    """The token for an arklet with a token."""
    token_file: FilePath | None = setting(None, variables=("KOUPLELESS_ARKLET_TOKEN_FILE",))
    """A file with the token in the first line."""

    pod: Text | None = setting(None)
    """A Pod, ``NAMESPACE/NAME`` or ``NAME``: the base inside, or the base of the module, instead of ``host``."""
    container: Text | None = setting(None)
    """The container of the Pod for copied artefacts; ``None`` means the first one."""
    context: Text | None = setting(None)
    """The context of the kubeconfig; ``None`` means the current one."""
    kubeconfig: FilePath | None = setting(None)
    """The way to a cluster; ``None`` means the file of ``kubectl``."""

    tls: Flag = setting(False)
    """Whether the arklet speaks TLS; each of the following settings says so, too."""
    ca_certs: FilePath | None = setting(None)
    """Issuers of the arklet's certificate; ``None`` means those known to the machine."""
    certfile: FilePath | None = setting(None)
    """The certificate to show to an arklet that asks for one."""
    keyfile: FilePath | None = setting(None)
    """The private key, unless the file of the certificate has the key, too."""

    def of_host(self) -> "ClientSettings":
        """Return the settings for the base at the host, without a Pod."""
        return replace(self, pod=None)

    @property
    def has_tls(self) -> bool:
        """Whether calls go over TLS."""
        return self.tls or self.ca_certs is not None or self.certfile is not None

    def read_tls(self) -> "ssl.SSLContext | None":
        """The context of calls; ``None`` without TLS. Raises ``SettingsError`` for files that cannot be used."""
        if not self.has_tls:
            return None
        import ssl  # noqa: PLC0415 - a long import for a short command

        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
            if self.certfile is not None:
                context.load_cert_chain(self.certfile, self.keyfile, "")
        except OSError as error:  # ssl.SSLError is one
            named = ", ".join(str(path) for path in (self.ca_certs, self.certfile, self.keyfile) if path is not None)
            raise SettingsError(f"TLS: {named} cannot be used: {getattr(error, 'reason', None) or error}") from None
        return context

    def read_token(self) -> str | None:
        """The token, from `token` or `token_file`. Raises ``SettingsError`` for an unusable file."""
        return read_token(self.token, self.token_file, "token-file")


def load_client(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> ClientSettings:
    """Read the settings of ``arkctl`` from ``flags`` (by field name; ``None`` is not given), environment and files.

    The files: of the project in ``directory`` (the current directory), then ``~/.config/arkctl/config.toml``. Raises
    ``SettingsError``.
    """
    environ = os.environ if environ is None else environ
    directory = directory or Path.cwd()
    project, project_origin = find_table(directory, None, "arkctl")
    user_file = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "arkctl" / "config.toml"
    user = read_toml(user_file) if user_file.is_file() else {}
    sources = Sources(
        flags={key: value for key, value in (flags or {}).items() if value is not None},
        environ=environ,
        prefix="ARKCTL_",
        tables=(
            (dict(flatten(project)), project_origin),
            (dict(flatten(user)), Origin(str(user_file), user_file.parent)),
        ),
        directory=directory,
    )
    sources.refuse_unknown(keys_of(ClientSettings))
    return ClientSettings(**sources.read(ClientSettings))
