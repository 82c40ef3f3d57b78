"""The tree of failures: drawn as it is, each code brought in by one class, each with its HTTP status."""

from __future__ import annotations

import re
from pathlib import Path

from comfy_serverless import errors
from comfy_serverless.errors import STATUSES, ComfyError, EngineError, Refusal, all_errors

#: A row of the drawing: how deep, which class, and its code where it has one.
_ROW = re.compile(r"^    (?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: +(?P<code>[a-z_]+)(?= ))?", re.MULTILINE)


def drawn() -> list[tuple[str, str | None, str]]:
    """The rows of the drawing, as (class, class above, code)."""
    path: list[str] = []
    rows = []
    for row in _ROW.finditer(errors.__doc__ or ""):
        depth = len(row["indent"]) // 4
        del path[depth:]
        rows.append((row["name"], path[-1] if path else None, row["code"] if row["code"] in STATUSES else ""))
        path.append(row["name"])
    return rows


def test_the_drawing_is_the_tree() -> None:
    above = {kind.__name__: kind.__base__.__name__ for kind in all_errors() if kind.__base__ and kind is not ComfyError}
    assert {name: parent for name, parent, _ in drawn() if parent} == above
    for name, parent, code in drawn():
        if parent:
            assert code == getattr(errors, name).code


def test_every_failure_is_in_the_file() -> None:
    names = "|".join(kind.__name__ for kind in all_errors())
    for source in Path(errors.__file__).parent.rglob("*.py"):
        own = source.read_text()
        if source.name != "errors.py":
            imported = set(re.findall(rf"\b({names})\b", "".join(re.findall(r"errors import (\([^)]*\)|.*)", own))))
            assert not imported & set(re.findall(r"^class \w+\((\w+)", own, re.MULTILINE)), source


def test_a_code_is_brought_in_by_one_class() -> None:
    bringing = [kind.code for kind in all_errors() if vars(kind).get("code") and not _is_of_tests(kind)]
    assert len(bringing) == len(set(bringing))
    assert set(STATUSES) == set(bringing)


def test_the_status_of_a_code_does_not_depend_on_the_order_of_the_file() -> None:
    assert (STATUSES["internal_error"], STATUSES["invalid_request"], STATUSES["missing_asset"]) == (500, 422, 422)
    assert (STATUSES["invalid_setting"], STATUSES["engine_crashed"], STATUSES["queue_full"]) == (500, 503, 429)


def test_what_is_never_raised_itself_has_no_code() -> None:
    assert {kind for kind in all_errors() if not kind.code} == {EngineError, Refusal}


def _is_of_tests(kind: type[ComfyError]) -> bool:
    return kind.__module__.partition(".")[0] in {"tests", "local"} or kind.__module__.startswith("test_")
