"""The text of a scrape, with all metrics of the process, by ``prometheus-client``."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.prometheus import collected
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger("koupleless")

_OPENMETRICS: Final = "application/openmetrics-text"
_END: Final = b"# EOF\n"


def expose(accept: str) -> tuple[bytes, str]:
    """Write all metrics of the process in the format that ``accept``, a header of HTTP, prefers.

    Returns the text and its content type. The first call imports ``prometheus_client``, whose default registry has the
    figures of the process. Runs code of the base and of bizs, so not for an event loop; a biz with a collector in which
    a call raises or hangs is left out. Raises the errors of collectors of the base. Any thread may call.
    """
    import prometheus_client  # noqa: PLC0415 - not for a base that nobody scrapes
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - the same

    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    text = b"".join(_text_of(encode, family) for family in collected(prometheus_client.REGISTRY))
    return text + (_END if content_type.startswith(_OPENMETRICS) else b""), content_type


class _One:
    """One family in the place of a registry."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def collect(self) -> tuple[Any]:
        return (self._family,)


def _text_of(encode: Callable[[Any], bytes], family: Any) -> bytes:
    """Encode one family; without unusable exemplars, and to nothing with unusable samples."""
    try:
        return encode(_One(family)).removesuffix(_END)
    except Exception:  # noqa: BLE001 - samples of anybody's collectors
        bare = copy.copy(family)
        bare.samples = [sample._replace(exemplar=None) for sample in family.samples]
    try:
        return encode(_One(bare)).removesuffix(_END)
    except Exception as error:  # noqa: BLE001 - the same
        _log.warning("metric %s is left out, since no text can be made: %s", family.name, in_words(error))
        return b""
