"""Modules bring other versions of a library than the base has: side by side, in any order, again and again.

A few of many: ``scripts/versions`` uses some forty distributions so, and twenty pairs, and writes
docs/private-versions.md.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from koupleless.artifact.manifest import Manifest, render_biz_toml
from koupleless.biz import BizId
from koupleless.errors import ManifestInvalid

WITH_OLD_WHEELS = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the index has no wheels of such old versions (numpy 2.2, pydantic 2.8) for it"
)
RUN = Path(__file__).parent / "versions" / "run.py"

SERVE = """
import json
import sys
from importlib.metadata import version

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer()).encode()]
"""

PYDANTIC = (
    SERVE
    + """
import pickle
from typing import Generic, TypeVar

import pydantic
import pydantic_core

T = TypeVar("T")

class Item(pydantic.BaseModel):
    name: str
    price: "Price"

class Price(pydantic.BaseModel):
    amount: float

class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]

Item.model_rebuild()

def answer():
    item = Item(name="tea", price={"amount": "2.5"})
    try:
        Item(name=1, price=None)
        said = ""
    except pydantic.ValidationError as error:
        said = error.errors()[0]["url"]
    return {
        "says": pydantic.VERSION,
        "metadata": version("pydantic"),
        "core": pydantic_core.__version__,
        "core_metadata": version("pydantic-core"),
        "item": json.loads(item.model_dump_json()),
        "page": Page[Item](items=[item]).model_dump(mode="json"),
        "again": pickle.loads(pickle.dumps(item)) == item,
        "url": said,
        "required": pydantic.TypeAdapter(list[Item]).json_schema()["$defs"]["Item"]["required"],
        "same": sys.modules["pydantic"] is pydantic,
    }
"""
)


@WITH_OLD_WHEELS
@pytest.mark.network
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "names",
    [["markupsafe", "httptools", "bcrypt", "click"], ["pair-preshed", "pair-boost-histogram"]],
    ids=["alone", "in pairs"],
)
def test_pure_and_compiled_libraries_in_two_versions_each(tmp_path, names):
    """Each in processes of their own, in every order; pairs find each other in C. See `versions/run.py`."""
    command = [sys.executable, "-P", RUN, "--python", sys.executable, "--scratch", tmp_path, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines() if line.endswith(" ok")} == set(names)


def test_a_library_that_cannot_be_had_twice_is_refused_by_name_at_install(inside, tmp_path, monkeypatch):
    def artefact(name: str, version: str) -> Path:
        root: Path = tmp_path / name
        info = root / "lib" / f"lxml-{version}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: lxml\nVersion: {version}\n")
        info.joinpath("RECORD").write_text("lxml/__init__.py,,\n")
        info.parent.joinpath("lxml").mkdir()
        info.parent.joinpath("lxml/__init__.py").write_text(f"version = {version!r}")
        root.joinpath("app.py").write_text("def app(environ, start_response): raise NotImplementedError")
        manifest = Manifest(id=BizId.of(name, "1"), entry="app:app", web_context_path=f"/{name}")
        root.joinpath("biz.toml").write_text(render_biz_toml(manifest))
        return root

    monkeypatch.syspath_prepend(str(artefact("base", "6.1.3") / "lib"))
    with pytest.raises(ManifestInvalid, match=r'lxml 5\.4\.0 cannot .* this base has 6\.1\.3; .*isolation = "process"'):
        inside.install(artefact("other", "5.4.0"))
    inside.install(artefact("same", "6.1.3"))
    assert [info.id.name for info in inside.container.bizs()] == ["same"]


def expected_of_pydantic(version: str, core: str) -> dict[str, Any]:
    return {
        "says": version,
        "metadata": version,
        "core": core,
        "core_metadata": core,
        "item": {"name": "tea", "price": {"amount": 2.5}},
        "page": {"items": [{"name": "tea", "price": {"amount": 2.5}}]},
        "again": True,
        "url": f"https://errors.pydantic.dev/{version.rpartition('.')[0]}/v/string_type",
        "required": ["name", "price"],
        "same": True,
    }


@pytest.fixture(scope="module")
def pydantics(inside_all):
    """The same application with an older pydantic, and with that of the base."""
    files = {"app.py": PYDANTIC}
    return {
        "old": inside_all.build("old", "1.0", files, needs=["pydantic==2.8.2"]),
        "shared": inside_all.build("shared", "1.0", files, needs=["pydantic"]),
    }


@WITH_OLD_WHEELS
@pytest.mark.network
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "order",
    [("old", "shared"), ("shared", "old")],
    ids="-".join,
)
def test_each_module_has_its_own_pydantic_and_its_compiled_core(inside, pydantics, order):
    import pydantic

    of_base = (pydantic, sys.modules["pydantic"], sys.modules["pydantic_core"])
    expected = {
        "old": expected_of_pydantic("2.8.2", "2.20.1"),
        "shared": expected_of_pydantic(pydantic.VERSION, importlib.metadata.version("pydantic-core")),
    }

    for name in order:
        inside.install(pydantics[name])
    for _ in range(2):
        for name in order:
            assert inside.get(f"/{name}/").json() == expected[name]
        report = inside.uninstall(f"{order[1]}:1.0")
        assert report.clean, report.summary()
        assert inside.get(f"/{order[0]}/").json() == expected[order[0]]
        inside.install(pydantics[order[1]])
    for name in order:
        report = inside.uninstall(f"{name}:1.0")
        assert report.clean, report.summary()

    assert (pydantic, sys.modules["pydantic"], sys.modules["pydantic_core"]) == of_base
    assert importlib.metadata.version("pydantic") == pydantic.VERSION


NUMPY = (
    SERVE
    + """
import pickle

import numpy

class Series:
    def __init__(self, values):
        self.values = numpy.array(values)

def answer():
    series = Series([1, 2, 3])
    again = pickle.loads(pickle.dumps(series))
    return {
        "version": numpy.__version__,
        "metadata": version("numpy"),
        "mean": float(again.values.mean()),
        "product": (numpy.eye(2) @ numpy.array([1.0, 2.0])).tolist(),
        "random": numpy.random.default_rng(1).integers(10, size=3).tolist(),
        "fft": numpy.fft.fft([1, 0, 0, 0]).real.tolist(),
        "inverse": numpy.linalg.inv(numpy.array([[2.0, 0], [0, 4.0]])).tolist(),
        "object": numpy.array([series], dtype=object)[0] is series,
        "structured": numpy.zeros(1, dtype=[("a", "i4")])["a"].tolist(),
    }
"""
)


@WITH_OLD_WHEELS
@pytest.mark.network
@pytest.mark.timeout(300)
def test_numpy_of_its_own_is_installed_used_removed_and_installed_again(inside):
    private = inside.build("private-numpy", "1.0", {"app.py": NUMPY}, needs=["numpy==2.2.6"])
    shared = inside.build("shared-numpy", "1.0", {"app.py": NUMPY}, needs=["numpy"])
    of_base = importlib.metadata.version("numpy")

    def expected(version: str) -> dict[str, Any]:
        answer = {"version": version, "metadata": version, "mean": 2.0, "product": [1.0, 2.0], "random": [4, 5, 7]}
        more = {"fft": [1.0] * 4, "inverse": [[0.5, 0.0], [0.0, 0.25]], "object": True, "structured": [0]}
        return answer | more

    for _ in range(3):
        inside.install(private)
        assert inside.get("/private-numpy/").json() == expected("2.2.6")
        inside.install(shared)
        assert inside.get("/shared-numpy/").json() == expected(of_base)
        assert inside.get("/private-numpy/").json() == expected("2.2.6")
        report = inside.uninstall("private-numpy:1.0")
        assert report.clean, report.summary()
        assert inside.get("/shared-numpy/").json() == expected(of_base)
        report = inside.uninstall("shared-numpy:1.0")
        assert report.clean, report.summary()

    assert sys.modules["numpy"].__version__ == of_base
