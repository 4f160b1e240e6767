"""What libraries say about being shared, as far as it was tested: data, and no code of them.

A library stands under ``ALWAYS`` once two modules and a base have used it in different configurations, a new version
has replaced one of them, both have left, and nobody saw anything of another (``scripts/libraries``): it keeps no such
state, or an adapter gives each biz its own. What such a library requires is shared with it. ``COPY`` is for libraries
that others on this list, or compiled ones, may require, and that keep state all the same.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Share(enum.Enum):
    """The word of a library, or of an adapter, about itself."""

    ALWAYS = "always"
    """Several bizs may use it in different configurations: it keeps no state, or each biz has its own."""
    COPY = "copy"
    """Each biz is to have its own copy."""
    NEVER = "never"
    """As a copy, and nobody may ask for it to be shared."""


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
    # Generated modules enter their messages into the pool of the biz, through a module that remembers it; C code, and
    # options, know descriptor_pb2 alone.
    "protobuf": re.compile(r"google(\.protobuf(\.(?!descriptor_pb2$)\w+_pb2|\.internal(\.builder)?)?)?"),
}
"""Of shared distributions, the modules that each biz executes anew; the packages around them among these."""

COPYABLE: Final[frozenset[str]] = frozenset({"pendulum", "psutil", "regex", "sqlalchemy", "tornado"})
"""Distributions with compiled files of which a second copy of the Python half was tested."""
