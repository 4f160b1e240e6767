"""The settings of the ways from a base to its controller."""

# ruff: noqa: RUF009 - `setting` returns a dataclass field, which ruff cannot see

from dataclasses import dataclass

from koupleless.settings.reading import read_token, setting
from koupleless.settings.values import Endpoint, FilePath, SecondsOrNone, Text


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
