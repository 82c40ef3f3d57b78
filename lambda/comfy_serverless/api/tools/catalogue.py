"""Which tools an owner has: one for each named workflow that he may run, after those that everybody has. No IO.

    poster ──► run_poster          a name of more than 60 letters ──► run-its-beginning-1a2b3c4d

No two tools have one name: those of workflows begin with `run_` or `run-`, and names of workflows are unique.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_serverless.api.paging import bad_cursor, cursor_text, write_cursor
from comfy_serverless.api.tools.texts import LONGEST_DESCRIPTION, LONGEST_TITLE, plain, shown_schema
from comfy_serverless.workflows.reference import NAME

#: Tools on a page of the list: the schema of each is a document in S3, which is read once.
PAGE: Final = 50
#: Models' makers take tools with names of up to 64 letters, digits, `_` and `-`.
LONGEST_NAME: Final = 64
_RUN, _SHORTENED = "run_", "run-"
_HASH_CHARACTERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool, as agents see it.

    Attributes:
        description: what it does; that of a workflow has its author's words, marked as such.
        input_schema: a JSON Schema of an object.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    is_read_only: bool = False
    is_destructive: bool = False


def tool_name(workflow: str) -> str:
    """The name of the tool that runs a workflow."""
    if len(workflow) <= LONGEST_NAME - len(_RUN):
        return f"{_RUN}{workflow}"
    beginning = workflow[: LONGEST_NAME - len(_SHORTENED) - 1 - _HASH_CHARACTERS]
    return f"{_SHORTENED}{beginning}-{hashlib.sha256(workflow.encode()).hexdigest()[:_HASH_CHARACTERS]}"


def workflow_in(tool: str) -> str | None:
    """The name of the workflow that a tool runs; "" if the tool's own name is shortened, None for other tools."""
    if tool.startswith(_SHORTENED):
        return ""
    name = tool.removeprefix(_RUN)
    return name if tool.startswith(_RUN) and NAME.fullmatch(name) and tool_name(name) == tool else None


def tool_of(workflow: str, *, title: str, description: str, schema: Mapping[str, Any], is_shared: bool) -> Tool:
    """The tool that runs a workflow. `title` and `description` are its author's words."""
    whose = "which the operator shares" if is_shared else "which is yours"
    said = plain(description, LONGEST_DESCRIPTION)
    told = (
        f"Runs the ComfyUI workflow {workflow!r}, {whose}, and returns what it makes: small pictures, sounds and texts "
        "themselves, all of it as links; or the id of a job that takes longer, for get_job."
    )
    return Tool(
        name=tool_name(workflow),
        title=plain(title, LONGEST_TITLE, is_line=True) or workflow,
        description=f"{told}\n\nIts author says of it:\n{said}" if said else told,
        input_schema=shown_schema(schema),
    )


def cursor_after(last: str) -> str:
    """Where the next page begins: after the tool of this workflow ("" is the first of them)."""
    return write_cursor(f"after:{last}")


def workflow_before(cursor: str) -> str:
    """The name of the workflow that a page begins after. Raises InvalidCursor for a text that is not one of ours."""
    mark, _, last = cursor_text(cursor).partition(":")
    if mark != "after" or (last and not NAME.fullmatch(last)):
        raise bad_cursor("nextCursor")
    return last
