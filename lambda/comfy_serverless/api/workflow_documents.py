"""The OpenAPI document with the workflows of an owner: kept in the process, and made anew when it would be another one.

Each time the heads are read, and nothing else, to see whether it would be.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from comfy_serverless.api.workflow_lookup import Listed, described_for, listed, version_of
from comfy_serverless.api.workflow_openapi import MOST_WORKFLOWS, with_workflows
from comfy_serverless.workflows.finding import number_behind

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services

#: The owners whose documents are kept. One has some 2 MB at most (`workflow_openapi.MOST_BYTES`).
_KEPT_OWNERS: Final = 8


class _Made(NamedTuple):
    """A document, and what it was made of: the versions that run, and what the workers declare."""

    versions: list[object]
    declared: Mapping[str, Any] | None
    text: str


class WorkflowDocuments:
    """Those of one process. Thread-safe.

    Args:
        document: returns that of the whole API, without any workflow, as JSON.
    """

    def __init__(self, document: Callable[[], str]) -> None:
        self._document = document
        self._made: OrderedDict[str, _Made] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, owner: str, behind: Services) -> str:
        """The document of an owner, as JSON. A workflow that cannot be read now is left out, and looked for again."""
        found = list(islice((one for one in listed(behind, owner) if one.is_live), MOST_WORKFLOWS + 1))
        declared = behind.declarations.fresh()
        versions = [_meant(one, behind) for one in found]
        with self._lock:
            known = self._made.get(owner)
            if known is not None and known.declared is declared and known.versions == versions:
                self._made.move_to_end(owner)
                return known.text
        described = list(described_for(behind, found, declared))
        text = json.dumps(with_workflows(json.loads(self._document()), described))
        if len(described) == len(found):
            self._keep(owner, _Made(versions, declared, text))
        return text

    def _keep(self, owner: str, made: _Made) -> None:
        with self._lock:
            self._made[owner] = made
            self._made.move_to_end(owner)
            while len(self._made) > _KEPT_OWNERS:
                self._made.popitem(last=False)


def _meant(one: Listed, behind: Services) -> object:
    """What is the same as long as a workflow is: a version never changes, and a file is read anew when it does."""
    return version_of(behind, one) if one.head is None else (one.head.owner, one.name, number_behind(one.head))
