"""Say of libraries whether bizs can share them, as far as tested: data, and no code of libraries.

A library stands under ``ALWAYS`` after a test (``scripts/libraries``): two bizs and a base have used the library in
different configurations, a new version has replaced one biz, both have left, and nobody saw anything of another. Such a
library keeps no state of this kind, or an adapter gives each biz its own. All requirements of such a library are shared
as well. ``COPY`` is for libraries with state, which others on this list, or compiled ones, may require.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Share(enum.Enum):
    """The word of a library, or of an adapter, about sharing."""

    ALWAYS = "always"
    """Several bizs may use the library in different configurations: without state, or with a state for each biz."""
    COPY = "copy"
    """Each biz is to have an own copy."""
    NEVER = "never"
    """Each biz is to have an own copy, and nobody may ask for sharing."""


_ALWAYS: Final = """
a2wsgi aiohttp annotated-doc annotated-types anyio attrs blinker botocore certifi charset-normalizer click
cryptography dependency-injector exceptiongroup fastapi flask grpcio h11 h2 httpcore httptools httpx idna itsdangerous
jinja2 jmespath markupsafe matplotlib msgspec multidict numpy opentelemetry-api opentelemetry-sdk orjson packaging
pandas pillow polars prometheus-client protobuf psycopg pydantic pydantic-core pygments python-multipart pyyaml
requests rich s3transfer scikit-learn simplejson sniffio sqlalchemy starlette tomli typing-extensions
typing-inspection urllib3 uvloop watchfiles websockets werkzeug wsproto
"""
_COPY: Final = "asgiref boto3 celery django loguru pendulum psutil pyparsing regex sentry-sdk structlog tornado"

SHARE: Final[dict[str, Share]] = {
    **dict.fromkeys(_ALWAYS.split(), Share.ALWAYS),
    **dict.fromkeys(_COPY.split(), Share.COPY),
}
"""Normalised name -> word."""

PORTIONS: Final[dict[str, re.Pattern[str]]] = {
    # Generated Python modules enter their messages into the pool of the biz, through a module with a reference to the
    # pool; C code, and options, know descriptor_pb2 alone.
    "protobuf": re.compile(r"google(\.protobuf(\.(?!descriptor_pb2$)\w+_pb2|\.internal(\.builder)?)?)?"),
}
"""Python modules of shared distributions executed anew for each biz, with the packages around such modules."""

COPYABLE: Final[frozenset[str]] = frozenset({"pendulum", "psutil", "regex", "sqlalchemy", "tornado"})
"""Distributions with compiled files of which a second copy of the Python half was tested."""
