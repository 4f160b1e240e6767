"""Calls that no base lets a module make are found in a project before it is packed, where they are certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options, build
from koupleless.artifact.building.calls import find_refused_calls
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = {
    "from a package": "from gevent import monkey\nmonkey.patch_all()\n",
    "with arguments": "from gevent import monkey\nmonkey.patch_all(thread=False)\n",
    "under another name": "import gevent.monkey as m\nm.patch_socket()\n",
    "by its full name": "import gevent.monkey\ngevent.monkey.patch_all()\n",
    "the function": "from gevent.monkey import patch_all as p\np()\n",
    "kept": "import eventlet\ndone = eventlet.monkey_patch()\n",
    "imported in a try": "try:\n    import nest_asyncio\nexcept ImportError:\n    raise\nnest_asyncio.apply()\n",
    "in a with": "import eventlet\nfrom x import lock\nwith lock:\n    eventlet.monkey_patch()\n",
}

PASSED = {
    "in main": "from gevent import monkey\nif __name__ == '__main__':\n    monkey.patch_all()\n",
    "in a function": "from gevent import monkey\ndef start():\n    monkey.patch_all()\n",
    "in a try": "from gevent import monkey\ntry:\n    monkey.patch_all()\nexcept Exception:\n    pass\n",
    "something else of it": "import gevent.monkey\ngevent.monkey.is_module_patched('socket')\n",
    "another's function": "from mine import monkey\nmonkey.patch_all()\n",
    "a name of its own": "def patch_all(): pass\npatch_all()\n",
    "mentioned": "from gevent import monkey\npatch = monkey.patch_all\n",
    "no Python": "from gevent import monkey\nmonkey.patch_all(\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_call_that_the_entry_makes_when_it_is_imported_is_found(case: str) -> None:
    (found,) = find_refused_calls({"app.py": REFUSED[case].encode()}, "app:app")
    line = len(REFUSED[case].splitlines())
    assert found.startswith(f"app.py, line {line}, calls ")
    assert "for the whole process, the base and other modules included; remove the call" in found


@pytest.mark.parametrize("case", PASSED)
def test_what_may_never_be_called_is_left_to_the_base(case: str) -> None:
    assert find_refused_calls({"app.py": PASSED[case].encode(), "mine.py": b"monkey = 1"}, "app") == []


def test_it_is_found_in_the_modules_that_the_entry_imports_and_in_its_packages() -> None:
    call = b"from gevent import monkey\nmonkey.patch_all()\n"
    files = {
        "shop/__init__.py": call,
        "shop/web/__init__.py": b"from . import views\nimport shop.web.views\nfrom ..tools import nothing\n",
        "shop/web/views.py": b"from shop import late\n",
        "shop/late.py": call,
        "shop/tools.py": call,
        "shop/unused.py": call,
        "shop/maybe.py": call,
        "manage.py": call,
    }
    found = find_refused_calls(files, "shop.web:create_app()")
    assert [text.partition(",")[0] for text in found] == ["shop/__init__.py", "shop/tools.py", "shop/late.py"]


def test_a_project_that_makes_one_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "green.py").write_text(REFUSED["from a package"] + "app = None\n")
    with pytest.raises(BuildFailed) as failed:
        build(tmp_path / "green.py")
    assert str(failed.value).startswith("cannot build green:1.0.0: green.py, line 2, calls gevent.monkey.patch_all(): ")
    assert "a base of its own" in str(failed.value)
    assert not (tmp_path / "dist").exists()


def test_a_project_in_a_process_of_its_own_may_make_it(tmp_path: Path) -> None:
    (tmp_path / "green.py").write_text(
        '# /// script\n# [tool.koupleless.module]\n# isolation = "process"\n# ///\n' + REFUSED["from a package"]
    )
    assert build(tmp_path / "green.py", Options(out=tmp_path / "out")).path.exists()
