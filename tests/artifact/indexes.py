"""A stand-in for pip with an index that is a file, and a project with dependencies from there."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FakeIndex:
    """A pip with the distributions of a file: name -> [version, digest, text]."""

    def __init__(self, directory: Path) -> None:
        self.python = directory / "python"
        self._index, self._log = directory / "index.json", directory / "log"
        self._log.touch()
        self.offers(dep=["1.0", "d" * 64, "VALUE = 1"])
        self.python.write_text(
            f"#!{sys.executable}\nINDEX, LOG = {str(self._index)!r}, {str(self._log)!r}\n"
            + textwrap.dedent("""
                import json, re, sys
                from pathlib import Path
                arguments = sys.argv[3:]
                index = json.loads(Path(INDEX).read_text())
                with open(LOG, "a") as log:
                    print("install" if "--target" in arguments else "resolve", file=log)
                value = lambda flag: arguments[arguments.index(flag) + 1]
                if "--target" in arguments:
                    for pin in arguments[arguments.index("--target") + 2:]:
                        name = re.match(r"[\\\\w-]+", pin)[0]
                        into = Path(value("--target"))
                        info = into / f"{name}-{index[name][0]}.dist-info"
                        info.mkdir(parents=True)
                        (info / "METADATA").write_text(f"Name: {name}\\\\nVersion: {index[name][0]}\\\\n")
                        (into / f"{name}.py").write_text(index[name][2])
                    sys.exit()
                found = []
                for wanted in arguments[arguments.index("--constraint") + 2:]:
                    name = re.match(r"[\\\\w-]+", wanted)[0]
                    version, digest, _ = index[name]
                    item = {"metadata": {"name": name, "version": version, "requires_dist": []}}
                    item["is_direct"] = "@" in wanted
                    item["download_info"] = {"url": "file:///nowhere", "archive_info": {"hashes": {"sha256": digest}}}
                    found.append(item)
                Path(value("--report")).write_text(json.dumps({"install": found}))
            """).replace("\\\\", "\\")
        )
        self.python.chmod(0o755)

    def offers(self, **distributions: list[str]) -> None:
        self._index.write_text(json.dumps(distributions))

    @property
    def asked(self) -> list[str]:
        """The calls since the last look."""
        calls = self._log.read_text().split()
        self._log.write_text("")
        return calls


def write(project: Path, *dependencies: str, text: str = "app = print\n") -> None:
    (project / "hello.py").write_text(text)
    needs = ", ".join(f'"{name}"' for name in dependencies)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "hello"\nversion = "1"\ndependencies = [{needs}]\n\n'
        '[tool.koupleless.module]\nentry = "hello:app"\n'
    )
