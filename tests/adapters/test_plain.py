"""Libraries whose state is variables and containers of modules: a row each, seen by what they do."""

from __future__ import annotations

import importlib
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from koupleless.adapters import door
from koupleless.isolation.libraries.known import SHARE, Share

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet


class Row(NamedTuple):
    """How a module configures a library with a number, and what then is to be seen of it."""

    configure: str
    see: str


ROWS = {
    "starlette.convertors": Row(
        """
        from starlette.convertors import Convertor, register_url_convertor
        class Number(Convertor):
            regex = "[0-9]+"
            def convert(self, value): return int(value) + VALUE
            def to_string(self, value): return str(value)
        register_url_convertor("number", Number())
        """,
        """
        from starlette.routing import Route
        def see():
            try:
                return Route("/{x:number}", print).param_convertors["x"].convert("0")
            except AssertionError:
                return None
        """,
    ),
    "fastapi.encoders": Row(
        """
        import fastapi.encoders
        class Mine: ...
        fastapi.encoders.ENCODERS_BY_TYPE[complex] = lambda value: VALUE
        """,
        """
        from fastapi.encoders import jsonable_encoder
        def see():
            try:
                return jsonable_encoder(1j)
            except ValueError:
                return None
        """,
    ),
    "fastapi.openapi.docs": Row(
        "import fastapi.openapi.docs as docs\ndocs.swagger_ui_default_parameters['answer'] = VALUE",
        """
        from fastapi.openapi.docs import get_swagger_ui_html
        def see():
            body = get_swagger_ui_html(openapi_url="/", title="t").body.decode()
            return int(body.split('"answer": ')[1].split(",")[0]) if "answer" in body else None
        """,
    ),
    "pydantic.main": Row(
        "import pydantic\npydantic.BaseModel.model_config['str_max_length'] = VALUE",
        """
        import pydantic
        def see():
            class Model(pydantic.BaseModel):
                text: str
            for length in range(5):
                try:
                    Model(text="x" * length)
                except ValueError:
                    return length - 1
        """,
    ),
    "pydantic.v1.json": Row(
        "import pydantic.v1.json\npydantic.v1.json.ENCODERS_BY_TYPE[complex] = lambda value: VALUE",
        """
        import pydantic.v1.json
        def see():
            try:
                return pydantic.v1.json.pydantic_encoder(1j)
            except TypeError:
                return None
        """,
    ),
    "requests": Row(
        """
        import requests.adapters, requests.models
        requests.adapters.DEFAULT_CA_BUNDLE_PATH = "/nowhere/VALUE"
        requests.adapters.DEFAULT_RETRIES = VALUE
        requests.sessions.DEFAULT_REDIRECT_LIMIT = VALUE
        """,
        """
        import requests
        def see():
            session, adapter = requests.Session(), requests.adapters.HTTPAdapter()
            try:
                adapter.cert_verify(requests.packages.urllib3.HTTPSConnectionPool("x"), "https://x", True, None)
            except OSError as error:
                assert str(error).endswith(f"/nowhere/{session.max_redirects}")
                assert adapter.max_retries.total == 0 == requests.adapters.HTTPAdapter().max_retries.total
                return session.max_redirects
        """,
    ),
    "urllib3": Row(
        """
        import urllib3.connection, urllib3.poolmanager
        urllib3.connection.port_by_scheme["own"] = VALUE
        urllib3.poolmanager.pool_classes_by_scheme["own"] = urllib3.HTTPConnectionPool
        urllib3.poolmanager.key_fn_by_scheme["own"] = urllib3.poolmanager.key_fn_by_scheme["http"]
        """,
        """
        import urllib3
        def see():
            try:
                return urllib3.PoolManager().connection_from_host("x", scheme="own").port
            except urllib3.exceptions.URLSchemeUnknown:
                return None
        """,
    ),
    "httpx": Row(
        """
        import httpx._client, httpx._decoders
        httpx._client.USER_AGENT = "own/VALUE"
        class Decoder(httpx._decoders.IdentityDecoder):
            def decode(self, data): return b"VALUE"
        httpx._decoders.SUPPORTED_DECODERS["own"] = Decoder
        """,
        """
        import httpx
        def see():
            agent = httpx.Client(trust_env=False).headers["user-agent"]
            text = httpx.Response(200, headers={"content-encoding": "own"}, content=b"0").text
            assert agent == f"own/{text}" or text == "0"
            return int(text) or None
        """,
    ),
    "aiohttp": Row(
        """
        import aiohttp.client, aiohttp.client_reqrep, aiohttp.payload
        aiohttp.client.DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=VALUE)
        aiohttp.payload.PAYLOAD_REGISTRY.register(lambda *_, **__: None, complex)
        """,
        """
        import asyncio, aiohttp
        def see():
            async def made():
                async with aiohttp.ClientSession() as session:
                    return session.timeout.total
            try:
                aiohttp.payload.PAYLOAD_REGISTRY.get(1j)
            except aiohttp.payload.LookupError:
                return None
            loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(made())
            finally:
                loop.close()
        """,
    ),
    "click": Row(
        """
        from click.shell_completion import BashComplete, add_completion_class
        class Own(BashComplete):
            name = "own"
            number = VALUE
        add_completion_class(Own)
        """,
        """
        from click.shell_completion import get_completion_class
        def see(): return getattr(get_completion_class("own"), "number", None)
        """,
    ),
    "werkzeug": Row(
        """
        import werkzeug.exceptions, werkzeug.http, werkzeug.security
        werkzeug.http.HTTP_STATUS_CODES[299] = "VALUE"
        class Own(werkzeug.exceptions.HTTPException):
            code = 299
        werkzeug.exceptions.default_exceptions[299] = Own
        werkzeug.security.DEFAULT_PBKDF2_ITERATIONS = VALUE
        """,
        """
        import werkzeug
        from werkzeug.security import generate_password_hash
        def see():
            known = werkzeug.exceptions.default_exceptions.get(299)
            reason = werkzeug.Response(status=299).status.partition(" ")[2]
            used = generate_password_hash("x", method="pbkdf2").split("$")[0].split(":")[-1] if known else reason
            assert used == reason
            return int(reason) if known else None
        """,
    ),
    "rich": Row(
        "import rich\nrich.reconfigure(width=VALUE)",
        "import rich\ndef see(): return rich.get_console().width if rich.get_console().width < 50 else None",
    ),
    "pygments": Row(
        """
        import sys, types, pygments.styles
        from pygments.lexers import _mapping
        _mapping.LEXERS["Own"] = ("pygments.lexers.python", "Own", ("own-VALUE",), (), ())
        """,
        """
        from pygments.lexers import get_all_lexers
        def see():
            names = [aliases for name, aliases, *_ in get_all_lexers(plugins=False) if name == "Own"]
            return int(names[0][0].split("-")[1]) if names else None
        """,
    ),
    "attrs": Row(
        "import attr\nattr.validators.set_disabled(VALUE == 1)",
        """
        import attr
        def see():
            @attr.s
            class Thing:
                a = attr.ib(validator=attr.validators.instance_of(int))
            try:
                Thing("x")
            except TypeError:
                return 2
            return 1
        """,
    ),
    "lxml": Row(
        """
        from lxml import etree, objectify
        etree.FunctionNamespace("http://shop")["number"] = lambda context: VALUE
        etree.FunctionNamespace("http://shop")("other")(lambda context: VALUE)
        etree.register_namespace(f"p{VALUE}", "http://shop")
        etree.set_default_parser(etree.XMLParser(remove_comments=VALUE == 1, remove_blank_text=VALUE == 2))
        objectify.set_default_parser(objectify.makeparser(remove_comments=VALUE == 1))
        """,
        """
        from lxml import etree, objectify
        def see():
            tree = etree.XML("<a> <!--x--><b> </b></a>")
            parsed = {"<a> <b> </b></a>": 1, "<a><!--x--><b> </b></a>": 2}.get(etree.tostring(tree).decode())
            child = etree.SubElement(etree.Element("root"), "{http://shop}e", {"{http://shop}a": "1"})
            named = {"p1": 1, "p2": 2}.get(child.prefix)
            assert (b"!" in etree.tostring(objectify.fromstring("<a><!--x--></a>"))) == (parsed != 1)
            try:
                functions = {tree.xpath(f"s:{name}()", namespaces={"s": "http://shop"}) for name in ("number", "other")}
            except etree.XPathEvalError as error:
                assert str(error) == "Unregistered function"
                functions = {None}
            (only,) = functions | {parsed, named}
            return only
        """,
    ),
    "scipy.special": Row(
        """
        import scipy.fft, scipy.special
        class Backend:
            __ua_domain__ = "numpy.scipy.fft"
            @staticmethod
            def __ua_function__(method, args, kwargs): return VALUE
        scipy.fft.set_global_backend(Backend)
        def begin():
            scipy.special.seterr(all={1: "raise", 2: "warn"}[VALUE])
        """,
        """
        import warnings
        import scipy.fft, scipy.special
        def gammaln(x): return scipy.special.gammaln(x)
        def see():
            transformed = scipy.fft.fft([1.0, 2.0])
            number = transformed if isinstance(transformed, int) else None
            globals().get("begin", lambda: None)()  # on this thread
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(2):
                    try:
                        gammaln(0.0)
                    except scipy.special.SpecialFunctionError as error:
                        assert str(error) == "scipy.special/lgam: singularity"
                        told = 1
                    else:
                        told = 2 if caught else None
            assert all(issubclass(each.category, scipy.special.SpecialFunctionWarning) for each in caught)
            assert scipy.special.geterr()["singular"] == {1: "raise", 2: "warn", None: "ignore"}[number]
            with scipy.special.errstate(singular="ignore"):
                assert gammaln(0.0) > 1
            assert told == number
            return number
        """,
    ),
    "polars": Row(
        """
        import polars
        polars.Config.set_tbl_rows(VALUE).set_float_precision(VALUE).set_tbl_hide_dataframe_shape(True)
        """,
        """
        import polars
        def see():
            frame = polars.DataFrame({"x": [0.5] * 20})
            rows = str(frame).count("0.5") if "shape" not in str(frame) else None
            assert ("0.50" in str(frame["x"])) == (rows == 2)
            assert polars.Config.state()["set_float_precision"] == rows
            return rows
        """,
    ),
    "pyarrow": Row(
        """
        import pyarrow
        class Mine(pyarrow.ExtensionType):
            number = VALUE
            def __init__(self): super().__init__(pyarrow.int64(), "shop.mine")
            def __arrow_ext_serialize__(self): return b""
            @classmethod
            def __arrow_ext_deserialize__(cls, storage, data): return cls()
        pyarrow.register_extension_type(Mine())
        pyarrow.set_cpu_count(VALUE)
        """,
        """
        import pyarrow
        def see():
            about = {"ARROW:extension:name": "shop.mine", "ARROW:extension:metadata": ""}
            schema = pyarrow.schema([pyarrow.field("x", pyarrow.int64(), metadata=about)])
            number = getattr(pyarrow.ipc.read_schema(schema.serialize()).field("x").type, "number", None)
            return pyarrow.cpu_count() if number is None else number
        """,
    ),
    "dependency_injector.wiring": Row(
        """
        import sys
        from dependency_injector import containers, providers, wiring
        class Shop(containers.DeclarativeContainer):
            number = providers.Object(VALUE)
        @wiring.inject
        def number(told=wiring.Provide["number"]):
            return told
        shop = Shop()
        shop.wire(modules=[sys.modules[__name__]])
        def number_of_shop():
            return number()
        """,
        """
        from dependency_injector import wiring
        def see(): return globals().get("number_of_shop", lambda: len(wiring._patched_registry._callables))()
        """,
    ),
    "botocore": Row(
        """
        import botocore.auth, botocore.endpoint, botocore.handlers
        class Own(botocore.auth.SigV4Auth):
            number = VALUE
        botocore.auth.AUTH_TYPE_MAPS["own"] = Own
        """,
        """
        import botocore.auth
        def see(): return getattr(botocore.auth.AUTH_TYPE_MAPS.get("own"), "number", None)
        """,
    ),
}


NOT_KEPT_APART = {
    *("celery", "django", "freezegun", "grpcio", "opentelemetry-api", "paho-mqtt", "prometheus-client"),
    *("psycopg-pool", "psycopg2", "pyzmq", "redis"),
}
"""Libraries of which an adapter records, or ends, objects of bizs, however bizs hold them."""
IN_PART = ("blacksheep", "lxml", "pyarrow", "pymongo", "scipy", "time-machine", "zope-interface")


def seen_by_base(row: Row) -> Any:
    namespace: dict[str, Any] = {}
    exec(textwrap.dedent(row.see), namespace)
    return namespace["see"]()


@pytest.mark.parametrize("name", ROWS)
def test_what_a_module_changes_is_its_own(fleet: Fleet, name: str) -> None:
    pytest.importorskip(name.partition(".")[0].replace("attrs", "attr"))
    row = ROWS[name]

    def source(value: int) -> str:
        return textwrap.dedent(row.configure).replace("VALUE", str(value)) + "\n" + textwrap.dedent(row.see)

    before = seen_by_base(row)
    one, two = fleet.start("one", source(1)), fleet.start("two", source(2))
    plain = fleet.start("plain", textwrap.dedent(row.see))
    assert [one.call("see"), two.call("see"), plain.call("see"), seen_by_base(row)] == [1, 2, before, before]
    again = fleet.start("one", source(2))
    assert [again.call("see"), two.call("see")] == [2, 2]
    fleet.stop("one", "two")
    assert [plain.call("see"), seen_by_base(row)] == [before, before]
    fleet.stop_all()
    assert seen_by_base(row) == before


def test_validators_of_two_modules_of_one_name_do_not_meet(fleet: Fleet) -> None:
    source = """
    from pydantic.v1 import BaseModel, validator
    class Order(BaseModel):
        total: int
        @validator("total")
        def check(cls, value): return value + 1
    def see(): return Order(total=1).total
    """
    source = textwrap.dedent(source)
    fleet.start("one", source)
    assert fleet.start("one", source).call("see") == 2


def test_every_library_with_an_adapter_is_shared() -> None:
    names = [adapter.distribution for adapter in door.KNOWN if adapter.distribution not in NOT_KEPT_APART]
    # The adapter of Sentry is about the base's client, which would report what bizs with a copy of their own do.
    # Of some compiled libraries, which are shared without a word of anybody, an adapter gives bizs a part only.
    expected = dict.fromkeys(names, Share.ALWAYS) | {"sentry-sdk": Share.COPY} | dict.fromkeys(IN_PART)
    assert {name: SHARE.get(name) for name in names} == expected


@pytest.mark.filterwarnings("ignore")  # what parents of these modules say when they are imported
def test_adapters_name_modules_that_there_are() -> None:
    for name in [name for adapter in door.KNOWN for name in getattr(adapter, "follow", {})]:
        top = name.partition(".")[0]
        if top in {"numpy", "matplotlib"} or importlib.util.find_spec(top) is None:
            continue  # some of other versions
        if top == "sentry_sdk":
            continue  # which imports eventlet; tried in a process of its own
        assert importlib.util.find_spec(name) is not None, name
