"""Libraries of which a module changes nothing but variables and containers: data, and no code for each library.

A biz assigns these variables, and changes these dictionaries, lists and sets, for itself and for the library at work
for the biz. A biz starts with the values of the base, without code of the base alone. Class attributes are not covered.
Other state stays shared by all: caches of results that do not depend on the caller.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.adapters.containers import is_hidden, own_containers
from koupleless.adapters.variables import own_variables

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping


class _Kept(NamedTuple):
    """The state of one Python module."""

    containers: str = ""
    variables: str = ""
    of: str = ""
    """Members with containers, ``Class.name`` or ``object.name``."""
    fresh: str = ""
    """Variables that are ``None`` until the library makes a value, for each biz anew."""


_LIBRARIES: Final[dict[str, dict[str, _Kept]]] = {
    "aiohttp": {
        "aiohttp.client": _Kept(variables="DEFAULT_TIMEOUT"),
        "aiohttp.client_reqrep": _Kept(variables="SERVER_SOFTWARE"),
        "aiohttp.connector": _Kept(variables="DefaultResolver"),
        "aiohttp.payload": _Kept(
            of="PAYLOAD_REGISTRY._first PAYLOAD_REGISTRY._normal PAYLOAD_REGISTRY._last PAYLOAD_REGISTRY._normal_lookup"
        ),
    },
    "attrs": {"attr._config": _Kept(variables="_run_validators")},
    "botocore": {
        "botocore.args": _Kept(containers="LEGACY_GLOBAL_STS_REGIONS"),
        "botocore.auth": _Kept("AUTH_TYPE_MAPS AUTH_PREF_TO_SIGNATURE_VERSION SIGNED_HEADERS_BLACKLIST"),
        "botocore.configprovider": _Kept("BOTOCORE_DEFAUT_SESSION_VARIABLES DEFAULT_S3_CONFIG_VARS"),
        "botocore.endpoint": _Kept(variables="DEFAULT_TIMEOUT MAX_POOL_CONNECTIONS"),
        "botocore.handlers": _Kept("BUILTIN_HANDLERS"),
        "botocore.history": _Kept(variables="HISTORY_RECORDER"),
        "botocore.httpsession": _Kept(variables="DEFAULT_CA_BUNDLE DEFAULT_TIMEOUT MAX_POOL_CONNECTIONS"),
        "botocore.parsers": _Kept("PROTOCOL_PARSERS"),
        "botocore.retries.standard": _Kept(variables="DEFAULT_MAX_ATTEMPTS"),
        "botocore.serialize": _Kept("SERIALIZERS"),
    },
    "click": {"click.shell_completion": _Kept("_available_shells")},
    "dependency-injector": {
        "dependency_injector.wiring": _Kept(
            of="_patched_registry._callables _patched_registry._attributes _loader.containers"
        ),
    },
    "fastapi": {
        "fastapi.encoders": _Kept("ENCODERS_BY_TYPE"),
        "fastapi.openapi.docs": _Kept("swagger_ui_default_parameters"),
        "fastapi.openapi.utils": _Kept(
            "validation_error_definition validation_error_response_definition status_code_ranges"
        ),
    },
    "httpcore": {
        "httpcore._async.connection": _Kept(variables="RETRIES_BACKOFF_FACTOR"),
        "httpcore._sync.connection": _Kept(variables="RETRIES_BACKOFF_FACTOR"),
    },
    "httpx": {
        "httpx._client": _Kept(variables="USER_AGENT ACCEPT ACCEPT_ENCODING"),
        "httpx._decoders": _Kept("SUPPORTED_DECODERS"),
        "httpx._models": _Kept("SENSITIVE_HEADERS SUPPORTED_DECODERS"),
    },
    "pillow": {
        "PIL.EpsImagePlugin": _Kept(variables="gs_binary"),
        "PIL.GifImagePlugin": _Kept(variables="LOADING_STRATEGY"),
        "PIL.Image": _Kept("OPEN SAVE SAVE_ALL DECODERS ENCODERS", "MAX_IMAGE_PIXELS WARN_POSSIBLE_FORMATS"),
        "PIL.ImageColor": _Kept("colormap"),
        "PIL.ImageFile": _Kept(variables="LOAD_TRUNCATED_IMAGES MAXBLOCK SAFEBLOCK"),
        "PIL.ImageFont": _Kept(variables="MAX_STRING_LENGTH"),
        "PIL.ImageShow": _Kept("_viewers"),
        "PIL.PngImagePlugin": _Kept(variables="MAX_TEXT_CHUNK MAX_TEXT_MEMORY"),
        "PIL.TiffImagePlugin": _Kept("_load_dispatch _write_dispatch", "READ_LIBTIFF WRITE_LIBTIFF STRIP_SIZE"),
        "PIL.TiffTags": _Kept("TAGS_V2 TAGS TYPES LIBTIFF_CORE"),
    },
    "pydantic": {
        "pydantic.deprecated.json": _Kept("ENCODERS_BY_TYPE"),
        "pydantic.main": _Kept(of="BaseModel.model_config"),
        "pydantic.v1.class_validators": _Kept("_FUNCS"),
        "pydantic.v1.json": _Kept("ENCODERS_BY_TYPE"),
        "pydantic.v1.validators": _Kept("_VALIDATORS"),
    },
    "pygments": {
        "pygments.filters": _Kept("FILTERS"),
        "pygments.formatters._mapping": _Kept("FORMATTERS"),
        "pygments.lexers": _Kept("_lexer_cache"),
        "pygments.lexers._mapping": _Kept("LEXERS"),
        "pygments.styles": _Kept("STYLE_MAP"),
        "pygments.token": _Kept("STANDARD_TYPES"),
    },
    "requests": {
        "requests.adapters": _Kept(variables="DEFAULT_CA_BUNDLE_PATH DEFAULT_RETRIES"),
        "requests.hooks": _Kept("HOOKS"),
        "requests.models": _Kept(variables="DEFAULT_REDIRECT_LIMIT ITER_CHUNK_SIZE"),
        "requests.sessions": _Kept(variables="DEFAULT_REDIRECT_LIMIT"),
        "requests.utils": _Kept("DEFAULT_PORTS", "DEFAULT_ACCEPT_ENCODING DEFAULT_CA_BUNDLE_PATH NETRC_FILES"),
    },
    "rich": {
        "rich": _Kept(fresh="_console"),
        "rich._emoji_codes": _Kept("EMOJI"),
        "rich._spinners": _Kept("SPINNERS"),
        "rich.default_styles": _Kept("DEFAULT_STYLES"),
    },
    "simplejson": {
        "simplejson": _Kept(variables="_default_decoder _default_encoder"),
        "simplejson.encoder": _Kept("ESCAPE_DCT"),
    },
    "starlette": {"starlette.convertors": _Kept("CONVERTOR_TYPES")},
    "urllib3": {
        "urllib3.connection": _Kept("port_by_scheme"),
        "urllib3.poolmanager": _Kept("key_fn_by_scheme pool_classes_by_scheme"),
        "urllib3.util": _Kept(variables="IS_PYOPENSSL SSLContext"),
        "urllib3.util.ssl_": _Kept("ALPN_PROTOCOLS", "DEFAULT_CIPHERS IS_PYOPENSSL SSLContext"),
    },
    "werkzeug": {
        "werkzeug.exceptions": _Kept("default_exceptions"),
        "werkzeug.http": _Kept("HTTP_STATUS_CODES"),
        "werkzeug.routing.converters": _Kept("DEFAULT_CONVERTERS"),
        "werkzeug.security": _Kept(variables="DEFAULT_PBKDF2_ITERATIONS"),
    },
}


def _follow(name: str, kept: _Kept, undo: contextlib.ExitStack, _module: Any) -> None:
    module = importlib.import_module(name)
    own_containers(undo, module, *kept.containers.split())
    for path in kept.of.split():
        holder, _, label = path.partition(".")
        own_containers(undo, getattr(module, holder), label)
    fresh = dict.fromkeys(kept.fresh.split())
    own_variables(undo, module, *kept.variables.split(), *fresh, start=fresh)


def _follow_formats(undo: contextlib.ExitStack, module: Any) -> None:
    """``PIL.Image``, with registries of formats by name."""
    registries = [module.OPEN, module.SAVE, module.SAVE_ALL]

    def is_of_base_format(key: Any, value: Any) -> bool:
        return any(is_hidden(kind, dict.get(registry, kind)) for registry in registries for kind in (key, value))

    own_containers(undo, module, "ID", "MIME", "EXTENSION", hides=is_of_base_format)
    _follow("PIL.Image", _LIBRARIES["pillow"]["PIL.Image"], undo, module)


class Plain(NamedTuple):
    """The adapter of one of the libraries."""

    distribution: str
    follow: Mapping[str, Callable[[contextlib.ExitStack, Any], None]]


_BEYOND_DATA: Final = {"PIL.Image": _follow_formats}
ADAPTERS: Final = tuple(
    Plain(
        name,
        {module: _BEYOND_DATA.get(module) or functools.partial(_follow, module, kept) for module, kept in each.items()},
    )
    for name, each in _LIBRARIES.items()
)
