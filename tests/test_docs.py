"""What the documentation lists is what there is."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tests import interface

import koupleless
from koupleless import client, errors
from koupleless.adapters.releasers import GROUP
from koupleless.arklet.answers import explain
from koupleless.arklet.operations import COMMANDS
from koupleless.arklet.pages.pages import ROUTES
from koupleless.artifact.build import Options, build_file
from koupleless.artifact.building.project import parse_project
from koupleless.artifact.building.requirements import BaseFacts
from koupleless.artifact.building.single_file import read_script_block
from koupleless.artifact.sources.wheel import ENTRY_POINT_GROUP
from koupleless.cli.showing import suggestions
from koupleless.errors import KouplelessError, ManifestInvalid
from koupleless.settings.base import ArkletSettings, BaseSettings
from koupleless.settings.client import ClientSettings
from koupleless.settings.control import ControlSettings
from koupleless.settings.controller import ControllerSettings, MqttSettings, ReviewSettings
from koupleless.wire import envelope

DOCS = Path(__file__).parent.parent / "docs"
SETTINGS = {
    BaseSettings: "KOUPLELESS_BASE_",
    ArkletSettings: "KOUPLELESS_ARKLET_",
    ControllerSettings: "KOUPLELESS_ARKLET_CONTROLLER_",
    ControlSettings: "KOUPLELESS_CONTROLLER_",
    MqttSettings: "KOUPLELESS_ARKLET_MQTT_",
    ReviewSettings: "KOUPLELESS_ARKLET_REVIEW_",
    ClientSettings: "ARKCTL_",
}


@pytest.mark.parametrize(
    ("group", "prefix"),
    SETTINGS.items(),
)
def test_every_setting_is_documented(group, prefix):
    listed = set(re.findall(r"`([A-Z_]+)`", (DOCS / "settings.md").read_text(encoding="utf-8")))
    there = {f"{prefix}{field.name.removesuffix('_s').upper()}" for field in fields(group) if field.metadata}

    below = tuple(other for other in SETTINGS.values() if other != prefix and other.startswith(prefix))
    assert there <= listed
    assert {name for name in listed if name.startswith(prefix) and not name.startswith(below)} == there


def test_variables_of_the_original_controller_are_documented_with_our_keys():
    page = (DOCS / "from-the-java-controller.md").read_text(encoding="utf-8")
    read = {
        variable: field.name.removesuffix("_s").replace("_", "-")
        for field in fields(ControlSettings)
        for variable in field.metadata.get("variables", ())
        if not variable.startswith("KOUPLELESS_") and variable != "POD_IP"  # ours, and the downward API's
    }
    table = table_of(page, "| variable of the original | here |")

    assert {variable: names_in(table[variable][0])[0] for variable in read} == read


def test_annotations_on_the_page_about_the_original_controller_are_there():
    page = (DOCS / "from-the-java-controller.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:rollout|service|virtual-kubelet|base)\.koupleless\.io/[\w-]+)", page))
    source = "".join(file.read_text("utf-8") for file in (DOCS.parent / "src/koupleless/controller").rglob("*.py"))

    assert len(named) > 8
    for name in named:
        assert name in source or f'"{name.partition("/")[2]}' in source or f"}}{name.partition('/')[2]}" in source, name


def table_of(page: str, head: str) -> dict[str, list[str]]:
    """The cells of a table of a page, by the first one, without the head."""
    rows = page.partition(f"\n{head}\n")[2].split("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells}


def keys_read_from(document: dict[str, object]) -> set[str]:
    """The keys of the table of a module that a build knows, as the refusal of an unknown one lists them."""
    with pytest.raises(ManifestInvalid) as caught:
        parse_project(document, root=DOCS, origin="here", options=Options(entry="a:b"))
    (issue,) = [issue for issue in caught.value.issues if "unknown key" in issue]
    return set(re.split(r", ?", issue.partition("known are ")[2]))


def test_every_key_of_a_module_is_documented():
    known = keys_read_from({"tool": {"koupleless": {"module": {"name": "a", "version": "1", "zzzzzzzzz": 1}}}})
    table = table_of((DOCS / "modules.md").read_text("utf-8"), "| key | kind | default | meaning |")

    assert {"entry", "env-file", "bring"} <= known
    assert table.keys() == known


@pytest.mark.parametrize(
    ("kind", "values"), [("text", 1), ("flag", "x"), ("number", "x"), ("texts", "x"), ("table", "x")]
)
def test_every_key_of_a_module_has_the_kind_that_is_documented(kind, values):
    table = table_of((DOCS / "modules.md").read_text("utf-8"), "| key | kind | default | meaning |")
    keys = [key for key, (found, *_) in table.items() if found == kind]
    words = {"text": "a text", "flag": "true or false", "number": "a whole number", "texts": "a list of texts"}
    document = {"tool": {"koupleless": {"module": {"name": "a", "version": "1", **dict.fromkeys(keys, values)}}}}
    with pytest.raises(ManifestInvalid) as caught:
        parse_project(document, root=DOCS, origin="here", options=Options(entry="a:b"))

    assert keys
    for key in keys:
        wanted = f"{key} = {json.dumps(values)} is not {words.get(kind, 'a table')}"
        assert any(wanted in issue.replace("'", '"') for issue in caught.value.issues), wanted


def test_keys_of_a_script_block_are_documented(tmp_path):
    page = (DOCS / "modules.md").read_text("utf-8")
    example = page.partition("```python\n# /// script")[2].partition("```")[0]
    (tmp_path / "hello.py").write_text(f"# /// script{example}app = lambda *_: None\n")
    built = build_file(tmp_path / "hello.py", Options(base=BaseFacts({"httpx": "1"}), compile=False))
    top = read_script_block(tmp_path, f"# /// script{example}")

    assert built.manifest.web_context_path == "/hi"
    assert built.manifest.requirements == ("httpx",)
    listed = table_of(page, "| key of the block | meaning |")
    assert {key.partition(".")[0] for key in listed} == top.keys()


def test_groups_of_entry_points_are_documented():
    table = table_of((DOCS / "modules.md").read_text("utf-8"), "| group of entry points | read from | meaning |")
    source = "".join(file.read_text("utf-8") for file in (DOCS.parent / "src").rglob("*.py"))

    assert table.keys() == {ENTRY_POINT_GROUP, GROUP}
    assert set(re.findall(r'GROUP: Final = "([\w.]+)"', source)) == table.keys()


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def type_of(schema: dict[str, Any]) -> str:
    """The type of an answer, as the page about the HTTP API names the type."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    return f"list of {type_of(schema['items'])}" if schema["type"] == "array" else str(schema["type"])


def test_commands_are_documented_with_their_members_and_data():
    page, document = (DOCS / "http-api.md").read_text("utf-8"), interface.document()
    table = table_of(page, "| command | members of the input | type of `data` | does |")
    schemas, said = document["components"]["schemas"], set()

    assert list(table) == [command.id for command in COMMANDS]
    for command, (members, data, does) in table.items():
        operation = document["paths"][f"/{command}"]["post"]
        reads = operation["requestBody"]["content"]["application/json"]["schema"]
        reply = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert names_in(members) == list(schemas[reads["$ref"].rpartition("/")[2]]["properties"]), command
        assert data == type_of(reply["allOf"][1]["properties"]["data"]["anyOf"][0]), command
        assert does
        said |= set(names_in(members))
    explained = page.partition("\n| member of an input | meaning |\n")[2].split("\n\n")[0]
    rows = [row.split("|")[1] for row in explained.splitlines()[1:]]
    assert {name for row in rows for name in names_in(row)} == said


def test_members_of_replies_are_documented():
    page, document = (DOCS / "http-api.md").read_text("utf-8"), interface.document()
    envelope = table_of(page, "| member of the envelope | meaning |")
    types = table_of(page, "| type | members | meaning |") | table_of(page, "| type of a page | members | meaning |")
    inputs = {command.reads.__name__ for command in COMMANDS}
    schemas = {
        name: list(schema["properties"])
        for name, schema in document["components"]["schemas"].items()
        if "properties" in schema and name not in inputs
    }

    assert list(envelope) == schemas.pop("Envelope")
    assert {name: names_in(members) for name, (members, _) in types.items()} == schemas


def test_pages_of_the_arklet_are_documented_with_types_and_statuses():
    page, paths = (DOCS / "http-api.md").read_text("utf-8"), interface.document()["paths"]
    table = table_of(page, "| page | type | statuses | shows |")
    assert list(table) == [route.path for route in ROUTES]
    for path, (kind, statuses, _) in table.items():
        responses = paths[path]["get"]["responses"]
        content = responses["200"]["content"]
        found = content.get("application/json", {"schema": {"type": "text"}})["schema"]
        assert kind == type_of(found["allOf"][0] if "allOf" in found else found), path
        assert {*statuses.split(", "), "401", "403"} == set(responses), path
    told = table_of(page, "| status | when |")
    assert set(told) >= {status for path in paths.values() if "post" in path for status in path["post"]["responses"]}


def kinds_of_errors() -> list[type[KouplelessError]]:
    """Every error of ours that a reply or a command of `arkctl` may end with, found through the class tree."""
    programs = {"koupleless.__main__", "koupleless.suite.inside", "koupleless.suite.command"}
    programs = {"koupleless.__main__", "koupleless.suite.inside", "koupleless.suite.command"}
    for module in pkgutil.walk_packages(koupleless.__path__, "koupleless."):
        if module.name not in programs:
            importlib.import_module(module.name)
    found, rest = [], [KouplelessError]
    while rest:
        kind = rest.pop()
        rest += kind.__subclasses__()
        if kind.__module__.startswith("koupleless."):
            found.append(kind)
    return found


def test_every_error_has_its_code_advice_and_exit_status_documented():
    table = table_of((DOCS / "errors.md").read_text("utf-8"), "| code | happened | do | exit |")

    assert {code: int(exit_) for code, (_, _, exit_) in table.items()} == {
        errors.code_of(kind): suggestions.exit_status(kind.__new__(kind)) for kind in kinds_of_errors()
    }
    assert all(happened and do for happened, do, _ in table.values())


def test_arkctl_shows_every_code_that_a_reply_carries_or_a_command_ends_with():
    for kind in kinds_of_errors():
        error, code = kind.__new__(kind), errors.code_of(kind)
        vars(error).update(dict.fromkeys(("message", "output", "reason", "traceback", "operation", "identity"), ""))
        vars(error)["address"] = "127.0.0.1:1"
        carried = explain(error, "restartBiz", base_identity="base").error_type
        reply = envelope.Envelope(code=envelope.Code.FAILED, message="no", error_type=carried)
        assert code in suggestions.report(client.Refused("restartBiz", reply))[0]
        if not isinstance(error, client.Refused):  # those show the codes of the reply
            assert suggestions.report(error, is_verbose=True)[-1] == f"code: {code}"


def test_addresses_in_messages_lead_to_pages_and_sections():
    root = DOCS.parent
    texts = [file.read_text("utf-8") for file in (root / "src").rglob("*") if file.suffix in {".py", ".tmpl"}]
    address = re.compile(r"https://github\.com/koupleless/koupleless-python/blob/main/([\w./-]+)(?:#([\w-]+))?")
    named = {found.groups() for text in texts for found in address.finditer(text)}
    named |= {("docs/troubleshooting.md", rule.section) for rule in suggestions.RULES}

    assert ("docs/troubleshooting.md", None) in named
    for path, section in named:
        titles = re.findall(r"^#+ (.*)$", (root / path).read_text("utf-8"), re.MULTILINE)
        sections = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert section is None or section in sections, f"{path}#{section}"


def test_every_section_about_a_failure_is_one_that_arkctl_leads_to():
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    named = {rule.section for rule in suggestions.RULES} | {suggestions.DOES_NOT_LEAVE}

    assert sections - named == {"the-module-answers-differently-than-alone"}  # which nothing but its author can notice


def test_codes_of_replies_and_exit_statuses_are_documented():
    codes = table_of((DOCS / "errors.md").read_text("utf-8"), "| code of a reply | means |")
    statuses = table_of((DOCS / "troubleshooting.md").read_text("utf-8"), "| exit status | means |")
    known = {
        value for name, value in vars(suggestions).items() if name.isupper() and type(value) is int and name[0] != "_"
    }

    assert set(codes) == {code.value for kind in (envelope.Code, envelope.ResponseCode) for code in kind}
    assert {int(status) for status in statuses} == {0, *known}


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_of_the_readme_lead_somewhere_from_the_package_index_too():
    about = metadata.metadata("koupleless")
    root = f"https://github.com/koupleless/koupleless-python/blob/v{about['Version']}/"
    there = re.findall(r"\]\(([^)#]+)", str(about.json["description"]))
    written = re.findall(r"\]\(([^)#]+)", (DOCS.parent / "README.md").read_text(encoding="utf-8"))

    assert there == [link if link.startswith("https:") else root + link for link in written]
    assert all((DOCS.parent / link.removeprefix(root)).exists() for link in there if link.startswith(root))
    assert any(link.startswith(root) for link in there)


def test_files_that_pages_name_are_there():
    root = DOCS.parent
    roots = [root, root / "src", root / "src/koupleless"]
    tops = {place.name for above in roots for place in above.iterdir() if place.is_dir()}
    pages = "".join(page.read_text(encoding="utf-8") for page in [*DOCS.glob("*.md"), *root.glob("*.md")])
    named = set(re.findall(r"`(\w[\w/-]*/[\w.-]*)`", pages))

    assert any(name.endswith(".py") for name in named)
    ours = {name for name in named if name.partition("/")[0] in tops}
    assert {name for name in ours if not any((place / name).exists() for place in roots)} == set()


@pytest.mark.parametrize("page", ["architecture", "how-an-install-runs", "how-an-uninstall-runs"])
def test_names_of_the_source_on_pages_about_the_inside_are_there(page):
    known = set(re.findall(r"\w+", "".join(file.read_text("utf-8") for file in (DOCS.parent / "src").rglob("*.py"))))
    text = re.sub(r"```.*?```", "", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[A-Za-z_]\w+", span)}
    commands = {file.stem for file in (DOCS.parent / "scripts").iterdir()}

    assert named
    assert named <= known | commands


def test_the_floors_of_the_architecture_are_those_of_the_contract():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("## Floors")[2].partition("```text\n")[2].partition("```")[0]
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "Layers")

    # A line of the drawing is a floor, with its explanation behind a gap or on a line of its own.
    assert [line.split("  ")[0] for line in drawn.splitlines() if not line.startswith(" ")] == layers
