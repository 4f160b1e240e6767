"""Annotations that are evaluated late (PEP 649, 3.14 and newer) mean the names of the biz, and keep nothing of it."""

from __future__ import annotations

import contextvars
import gc
import importlib
import inspect
import sys
import typing
import weakref
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.isolation.namespace import Namespace

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="annotations are evaluated late from CPython 3.14 on"
)

FILES = {
    "based_names.py": "class Named: pass",
    "main.py": """
        import dataclasses, functools, typing
        from based_names import Named

        @dataclasses.dataclass
        class Order:
            named: Named
            later: Later | None = None
            parts: list[Later] = dataclasses.field(default_factory=list)

        def handle(order: Order, later: Later) -> Named: ...

        def unknown(value: Nowhere): ...

        class Later: pass
    """,
}


@pytest.mark.parametrize("order", ["in the biz's context", "in none"])
def test_names_are_those_of_the_biz_whoever_evaluates(biz, base, order):
    base({"based_names.py": "class Named: pass"})
    annotationlib: Any = importlib.import_module("annotationlib")
    namespace = biz(FILES)
    main: Any = namespace.import_module("main")
    __import__("based_names")

    def look() -> None:
        for read in (annotationlib.get_annotations, typing.get_type_hints):
            assert read(main.handle) == {"order": main.Order, "later": main.Later, "return": main.Named}
            assert read(main.Order)["later"] == main.Later | None
        assert inspect.signature(main.handle).parameters["later"].annotation is main.Later
        forward = annotationlib.get_annotations(main.unknown, format=annotationlib.Format.FORWARDREF)["value"]
        assert isinstance(forward, annotationlib.ForwardRef)
        with pytest.raises(NameError, match="Nowhere"):
            forward.evaluate()
        assert forward.evaluate(globals={"Nowhere": main.Later}) is main.Later
        text = annotationlib.get_annotations(main.handle, format=annotationlib.Format.STRING)
        assert text == {"order": "Order", "later": "Later", "return": "Named"}

    if order == "in none":
        contextvars.Context().run(look)
    else:
        namespace.scope.variables.fork().run(look)


def test_what_was_evaluated_keeps_nothing_alive(write):
    annotationlib: Any = importlib.import_module("annotationlib")
    namespace = Namespace(Scope(BizId.parse("short:1.0")), [str(write(FILES))])
    main: Any = namespace.import_module("main")
    for form in annotationlib.Format:
        if form.name != "VALUE_WITH_FAKE_GLOBALS":
            annotationlib.get_annotations(main.Order, format=form)
            annotationlib.get_annotations(main.handle, format=form)
    annotationlib.get_annotations(main.unknown, format=annotationlib.Format.FORWARDREF)
    typing.get_type_hints(main.Order)
    alive = [weakref.ref(main), weakref.ref(main.Order), weakref.ref(main.handle), weakref.ref(main.Later)]
    del main
    namespace.drop()
    namespace.scope.close()
    del namespace
    for function in typing._cleanups:  # type: ignore[attr-defined]
        function()  # which leaving does, too
    gc.collect()
    assert [reference() for reference in alive] == [None] * 4
