"""The operator's workflows, which everybody may run who has a key: read and written directly, with credentials of AWS.

What the API does over HTTP for owners happens here, in the same order: the file is converted by what the workers have
told of their nodes (or by the ComfyUI of COMFYUI_URL), its inputs are found or chosen, and it is kept.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from comfy_serverless.api import workflow_views as views
from comfy_serverless.api.workflow_bodies import AliasBody
from comfy_serverless.errors import EngineUnavailable, NotFound
from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.checkup import refuse_broken
from comfy_serverless.workflows.deployed import Deployed, findings_of
from comfy_serverless.workflows.pushing import Prepared, prepare, unknown_ranges
from comfy_serverless.workflows.reference import LIVE, check_alias, check_name
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from comfy_serverless.cli.named.registry import Document
    from comfy_serverless.workflows.items import Head
    from comfy_serverless.workflows.store import WorkflowStore

#: What ComfyUI declares of its nodes; None if nobody has told.
Declared = Callable[[], Mapping[str, Any] | None]


class OfOperator:
    """The operator's workflows. Implements `registry.Registry`.

    Args:
        release: names what the workers were built from; "" if it is not known.
        deployed: returns what a push is held against; by default what is declared.
    """

    def __init__(
        self,
        store: WorkflowStore,
        declared: Declared,
        *,
        release: str = "",
        deployed: Callable[[], Deployed | None] | None = None,
    ) -> None:
        self._store, self._declared, self._release = store, declared, release
        self._deployed = deployed or self._as_declared

    def _as_declared(self) -> Deployed | None:
        object_info = self._declared()
        return None if object_info is None else Deployed(object_info=object_info, release=self._release)

    def entries(self) -> Iterator[Document]:
        """See `Registry`."""
        return (views.entry(head).model_dump() for head in self._store.heads(OPERATOR) if not head.is_retired)

    def described(
        self,
        name: str,
        *,
        alias: str | None = None,
        version: int | None = None,
        is_shared: bool = True,  # noqa: ARG002 - none here is anybody else's
    ) -> Document:
        """See `Registry`."""
        head = self._head(name)
        if version is None:
            weights = head.weights_of(alias or LIVE)
            if not weights and alias is not None:
                raise NotFound(f"the operator's workflow {name!r} has no alias {alias!r}.")
            version = max(weights, key=lambda number: (weights[number], -number)) if weights else None
        found = None if version is None else self._store.document(head, name, version)
        return views.described(head, found, self._declared(), name=name).model_dump(by_alias=True, exclude_none=True)

    def versions(self, name: str) -> Iterator[Document]:
        """See `Registry`."""
        head = self._head(name)
        return (views.version_entry(row, head).model_dump() for row in self._store.versions(OPERATOR, name))

    def push(self, name: str, body: Mapping[str, Any]) -> Document:
        """See `Registry`. The workflow is shared from then on."""
        check_name(name)
        if body.get("alias") is not None:
            check_alias(body["alias"])
        declared = self._declared()
        prepared, notes = self._prepared(name, body, declared)
        findings = findings_of(prepared.version, self._deployed())
        if body.get("dry_run"):
            shown = views.would_be(prepared, declared, notes=notes, findings=findings)
            return shown.model_dump(by_alias=True, exclude_none=True)
        if prepared.refusal is not None:
            raise prepared.refusal
        if not body.get("force"):
            refuse_broken(name, findings)
        kept = self._store.push(prepared.version, alias=body.get("alias"), if_head=body.get("expected"))
        head = self._store.share(name)
        told = views.pushed(kept, declared, notes=notes, findings=findings, is_new=kept.is_new, head=head)
        return told.model_dump(by_alias=True, exclude_none=True)

    def move(self, name: str, body: Mapping[str, Any]) -> Document:
        """See `Registry`."""
        asked = AliasBody.model_validate(dict(body))
        check_alias(asked.alias)
        targets, expected = asked.targets(), asked.expects()
        self._head(name)
        if targets is None:
            moved = self._store.rollback(OPERATOR, name, asked.alias, by=_who(), expected=expected)
        else:
            moved = self._store.move(OPERATOR, name, asked.alias, targets, by=_who(), expected=expected)
        return views.entry(moved).model_dump()

    def drop(self, name: str, alias: str) -> Document:
        """See `Registry`."""
        self._head(name)
        return views.entry(self._store.drop_alias(OPERATOR, name, alias, by=_who())).model_dump()

    def retire(self, name: str) -> None:
        """See `Registry`."""
        self._head(name)
        self._store.retire(OPERATOR, name)

    def share(self, name: str, is_shared: bool) -> bool:
        """Let everybody run a workflow, or nobody any more; returns whether that is new. Raises NotFound."""
        was_shared = self._head(name).is_shared
        self._store.share(name, is_shared)
        return was_shared is not is_shared

    def _head(self, name: str) -> Head:
        head = self._store.head(OPERATOR, name)
        if head is None or head.is_retired:
            raise NotFound(f"the operator has no workflow {name!r}: `workflows ls --shared` shows those there are.")
        return head

    def _prepared(
        self, name: str, body: Mapping[str, Any], declared: Mapping[str, Any] | None
    ) -> tuple[Prepared, tuple[str, ...]]:
        workflow, saved = body["workflow"], body.get("extra_data", {}).get("extra_pnginfo", {}).get("workflow")
        warnings: tuple[str, ...] = ()
        undeclared: tuple[str, ...] = ()
        rolled: Mapping[str, str] = {}
        if is_of_editor(workflow):
            saved = check_editor_format(workflow)
            if body.get("dry_run"):
                from comfy_serverless.graph.convert.stand_ins import stand_ins

                instead = stand_ins(saved, declared or {})
                declared, undeclared = (instead.object_info, instead.notes) if instead.classes else (declared, ())
            if declared is None:
                raise EngineUnavailable(
                    "no worker has told yet which nodes it has, and a workflow of the editor is converted by that: set "
                    "COMFYUI_URL to a ComfyUI with the same nodes, or run a job first, of any workflow."
                )
            from comfy_serverless.graph.convert import convert

            conversion = convert(saved, declared)
            workflow, warnings, rolled = conversion.graph, conversion.warnings, conversion.rolled
        bare = Version(
            name=name,
            number=0,
            owner=OPERATOR,
            graph=check_format(workflow),
            editors=saved if is_of_editor(saved) else None,
            rolled=rolled,
            description=body.get("description") or "",
            note=body.get("note") or "",
            created_by=_who(),
            release=self._release,
        )
        prepared = prepare(bare, declared, inputs=body.get("inputs"), outputs=body.get("outputs"))
        notes = (*warnings, *undeclared, *prepared.proposal.notes, *unknown_ranges(prepared.version))
        return prepared, tuple(dict.fromkeys(notes))


def _who() -> str:
    """Who changes it, for the history: the user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "operator"
