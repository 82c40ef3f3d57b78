"""Write what the code knows into the documentation: the tables of docs/settings.md, docs/errors.md and
docs/operate.md.

    python -m tools.docs_pages

A page keeps its words; what stands between `<!-- generated: NAME -->` and `<!-- /generated -->` is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from comfy_serverless.errors import ComfyError, EngineError, Kind, Refusal
from comfy_serverless.settings import Settings
from tools import templates

_Error = TypeVar("_Error", bound=ComfyError)

DOCS = Path(__file__).parents[1] / "docs"
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->).*?(<!-- /generated -->)", re.DOTALL)


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")


def fill(page: str) -> str:
    """The page with its tables as the code has them now."""
    return _GENERATED.sub(lambda found: f"{found[1]}\n\n{TABLES[found[2]]()}\n{found[3]}", page)


def settings_table() -> str:
    """A row a setting."""
    rows = ((f"`{s.metadata['variable']}`", _default(s.default), s.metadata["meaning"]) for s in fields(Settings))
    return _table(("variable", "default", "meaning"), rows)


def job_errors_table() -> str:
    """A row a way in which a job can fail."""
    rows = (
        (
            f"`{error.code}`",
            str(error.http_status),
            _yes(error.retryable),
            _meaning(error),
            error.by_itself,
            ALARMS[error.kind],
        )
        for error in _leaves(ComfyError)
        if not issubclass(error, Refusal)
    )
    return _table(("code", "HTTP status", "retryable", "meaning", "what happens by itself", "alarm"), rows)


def refusals_table() -> str:
    """A row a way in which the API refuses a request."""
    rows = (
        (f"`{error.code}`", str(error.http_status), _retry_after(error), _meaning(error)) for error in _leaves(Refusal)
    )
    return _table(("code", "HTTP status", "retryable", "meaning"), rows)


#: The alarm that failures ring, by whom they concern.
ALARMS: Mapping[Kind, str] = {
    Kind.REQUEST: "",
    Kind.INFRASTRUCTURE: "[JobsFail](alarms.md#jobsfail)",
    Kind.HANDOVER: "[JobsComeBack](alarms.md#jobscomeback)",
}


def templates_table() -> str:
    """A row a ComfyUI: how many of the official templates find all their classes there."""
    head = ("ComfyUI", "node classes", "of partners", "templates whose classes are all there", "without partner nodes")
    return _table(head, templates.rows())


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "job_errors": job_errors_table,
    "refusals": refusals_table,
    "templates": templates_table,
}


def _leaves(base: type[_Error]) -> Iterator[type[_Error]]:
    """Every class below one, in the order of the file; the bases that are never raised have no row."""
    for error in base.__subclasses__():
        if error not in (EngineError, Refusal):
            yield error
        yield from _leaves(error)


def _default(value: object) -> str:
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _meaning(error: type[ComfyError]) -> str:
    """The docstring's text before its sections."""
    return " ".join((error.__doc__ or "").partition("\n\n")[0].split())


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _retry_after(error: type[Refusal]) -> str:
    return f"after {error.retry_after_s} s" if error.retry_after_s else _yes(error.retryable)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


if __name__ == "__main__":
    main()
