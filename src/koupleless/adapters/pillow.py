"""Pillow: each biz has limits and switches of its own, and registers formats, codecs and viewers for itself.

What a module assigns, ``Image.MAX_IMAGE_PIXELS`` first of all, holds for what it opens. Formats that Pillow loads when
they are first needed reach everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import own_containers, own_variables

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

DISTRIBUTION: Final = "pillow"

_REGISTRIES: Final = {
    "PIL.Image": "ID OPEN MIME SAVE SAVE_ALL EXTENSION DECODERS ENCODERS",
    "PIL.ImageShow": "_viewers",
    "PIL.ImageColor": "colormap",
    "PIL.TiffTags": "TAGS_V2 TAGS TYPES LIBTIFF_CORE",
    "PIL.TiffImagePlugin": "_load_dispatch _write_dispatch",
}
_VARIABLES: Final = {
    "PIL.Image": "MAX_IMAGE_PIXELS WARN_POSSIBLE_FORMATS",
    "PIL.ImageFile": "LOAD_TRUNCATED_IMAGES MAXBLOCK SAFEBLOCK",
    "PIL.ImageFont": "MAX_STRING_LENGTH",
    "PIL.PngImagePlugin": "MAX_TEXT_CHUNK MAX_TEXT_MEMORY",
    "PIL.GifImagePlugin": "LOADING_STRATEGY",
    "PIL.TiffImagePlugin": "READ_LIBTIFF WRITE_LIBTIFF STRIP_SIZE",
    "PIL.EpsImagePlugin": "gs_binary",
}


def _follow(name: str) -> Callable[[contextlib.ExitStack, Any], None]:
    def follow(undo: contextlib.ExitStack, module: Any) -> None:
        own_containers(undo, module, *_REGISTRIES.get(name, "").split())
        own_variables(undo, module, *_VARIABLES.get(name, "").split())

    return follow


FOLLOWED: Final = {name: _follow(name) for name in {**_REGISTRIES, **_VARIABLES}}
