"""The inputs of a line: which of them are files, and where they go, as far as its workflow is known here. No IO.

An input by its name (`{"prompt": "a fox"}`) is known of a named workflow in a folder here. What was pushed is known on
the stack alone: there a text that ends like a file, and is one, is taken for it; others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.files import type_of_name
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.jobs.request import NOT_PLAIN, JobRequest, is_plain_input
from comfy_serverless.workflows.check import InputCheck
from comfy_serverless.workflows.version import Version


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a request.

    Attributes:
        files: what names files, as it is called in the line.
        values: what is set by names, by address.
        given: files by address, for a graph that is known.
    """

    files: dict[str, str | list[str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str | list[str]] = field(default_factory=dict)


def inputs_of(request: JobRequest, version: Version | None, *, is_here: Callable[[str], bool]) -> Inputs:
    """The inputs of a request.

    Args:
        version: of the workflow that it names, if that is known here.
        is_here: whether a text names a file of this machine.

    Raises:
        InvalidRequest: values by names do not fit; the message has every problem.
    """
    found = Inputs()
    names = {one.name: one for one in version.inputs} if version is not None else {}
    _check(version, {name: value for name, value in request.inputs.items() if name in names})
    is_known = not request.is_named or (version is not None and bool(version.graph))
    for name, value in request.inputs.items():
        one = names.get(name)
        if one is not None and one.kind is not InputKind.FILE:
            found.values.update(dict.fromkeys(one.targets, value))
        elif one is not None or is_known or "." in name:
            if not is_plain_input(value):
                raise InvalidRequest(f"inputs.{name[:200]}: {NOT_PLAIN}.")
            found.files[name] = value
            for target in (name,) if one is None else one.targets:
                found.given[target] = value
        elif is_plain_input(value) and all(_may_be_file(text, is_here) for text in _texts(value)):
            found.files[name] = value
    return found


def _check(version: Version | None, named: Mapping[str, Any]) -> None:
    """Raise InvalidRequest with all that is wrong with values by their names; what is missing may be on the stack."""
    problems = InputCheck.of(version).problems(named) if version is not None and named else []
    told = [f"inputs.{one.field}: {one.problem}" for one in problems if one.field in named]
    if told:
        raise InvalidRequest(f"the workflow cannot run so: {'; '.join(told)}.")


def _may_be_file(text: str, is_here: Callable[[str], bool]) -> bool:
    return not is_address(text) and type_of_name(text) is not None and is_here(text)


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
