"""The tools that an owner has, page by page: those that everybody has, and one for each workflow that runs now."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from comfy_serverless.api.tools import generic
from comfy_serverless.api.tools.calls import NoSuchWorkflow, Visit, stickiness
from comfy_serverless.api.tools.catalogue import (
    PAGE,
    Tool,
    cursor_after,
    tool_name,
    tool_of,
    workflow_before,
    workflow_in,
)
from comfy_serverless.api.workflow_lookup import Listed, listed, version_of
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.reference import NAME
from comfy_serverless.workflows.schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from comfy_serverless.workflows.version import Version


def page_of_tools(cursor: str | None, visit: Visit) -> tuple[list[Tool], str | None]:
    """A page of tools, and where the next one begins; None at the end. Raises InvalidCursor.

    A tool has the schema of the version that this key would run, with the choices that workers have now.
    """
    found = list(islice(_runnable(visit, after=workflow_before(cursor) if cursor else ""), PAGE + 1))
    shown, more = found[:PAGE], len(found) > PAGE
    key = stickiness(visit)
    object_info = visit.services.declarations.newest()

    def told(one: Listed) -> Tool | None:
        # The version ends here: a page of whole ones may have 300 MB.
        version = version_of(visit.services, one, key=key)
        return None if version is None else _tool(one, version, object_info)

    tools = [] if cursor else list(generic.TOOLS)
    tools += [tool for tool in visit.services.beside.map(told, shown) if tool is not None]
    return tools, cursor_after(shown[-1].name) if more else None


def _tool(one: Listed, version: Version, object_info: Mapping[str, Any] | None) -> Tool:
    return tool_of(
        one.name,
        title=(one.head.title if one.head else "") or version.description.strip().partition("\n")[0],
        description=version.description,
        schema=schema_of(version, object_info),
        is_shared=one.head is None or one.head.owner == OPERATOR,
    )


def workflow_of(tool: str, visit: Visit) -> str:
    """The workflow that a tool runs. Raises NoSuchWorkflow for a name that no such tool has."""
    name = workflow_in(tool)
    if name is None:
        raise NoSuchWorkflow(tool)
    if name:
        return name
    for one in _runnable(visit, after=""):
        if tool_name(one.name) == tool:
            return one.name
    raise NoSuchWorkflow(tool)


def _runnable(visit: Visit, *, after: str) -> Iterator[Listed]:
    """The workflows that can be run by their name alone. Files in subfolders have names that no tool can have."""
    known = listed(visit.services, visit.caller.owner, after=after)
    return (one for one in known if one.is_live and NAME.fullmatch(one.name))
