"""What an owner can run, read from the table, from S3 and from the image."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from comfy_serverless.api import workflow_views as views
from comfy_serverless.errors import ComfyError, NotFound
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.observability import log
from comfy_serverless.workflows.folder import NUMBER
from comfy_serverless.workflows.items import Head
from comfy_serverless.workflows.meant import SHARED
from comfy_serverless.workflows.reference import LIVE, Reference

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services
    from comfy_serverless.api.workflow_bodies import WorkflowEntry
    from comfy_serverless.api.workflow_openapi import Described
    from comfy_serverless.workflows.version import Version


class Seen(NamedTuple):
    """A workflow as its owner sees it; without a head it is a file in the image."""

    head: Head | None
    version: Version | None


class Listed(NamedTuple):
    """A workflow in a list of what an owner can run; without a head it is a file in the image."""

    name: str
    head: Head | None

    @property
    def is_live(self) -> bool:
        """Whether a run by the name alone finds a version."""
        return self.head is None or bool(self.head.weights_of(LIVE))


def listed(behind: Services, owner: str, *, after: str = "") -> Iterator[Listed]:
    """What an owner can run, by name; of one name, their own, then the operator's, then the image's file.

    Read page by page, as far as one looks: some hundred workflows are one query of each owner's.

    Args:
        after: only names behind this one.
    """
    shared = (head for head in behind.workflows.heads(OPERATOR, after=after) if head.is_shared)
    ranked = heapq.merge(
        ((head.name, 0, head) for head in behind.workflows.heads(owner, after=after)),
        ((head.name, 1, head) for head in shared),
        ((name, 2, None) for name in sorted(behind.named.files()) if name > after),
        key=lambda each: each[:2],
    )
    last = after
    for name, _, head in ranked:
        if name == last:
            continue
        last = name
        if head is None or not head.is_retired:
            yield Listed(name, head)


def entries(behind: Services, owner: str, *, after: str = "") -> Iterator[WorkflowEntry]:
    """The same as the API lists it."""
    for name, head in listed(behind, owner, after=after):
        yield views.entry_of_file(name) if head is None else views.entry(head)


def seen(behind: Services, reference: Reference, *, owner: str, is_shared: bool = False) -> Seen:
    """A workflow, and the version that a reference means; of two, that with the greater weight.

    Raises NotFound; but a workflow whose `live` leads nowhere is one without a version.

    Args:
        is_shared: whether the operator's is meant, whatever the owner has of that name.
    """
    before = SHARED if is_shared else ""
    of_image = reference.version == NUMBER and not is_shared
    head = None if of_image else _head(behind, reference.name, owner=OPERATOR if is_shared else owner)
    if head is None or head.is_retired or (is_shared and not head.is_shared):
        return Seen(None, behind.named.find(before + reference.to_text(), owner=owner))  # or says that there is none
    meant = reference
    if reference.version is None and reference.alias is not None:
        weights = head.weights_of(reference.alias)
        if not weights and reference.alias == LIVE:
            return Seen(head, None)
        if weights:
            meant = Reference(reference.name, None, max(weights, key=lambda number: (weights[number], -number)))
    return Seen(head, behind.named.find(before + meant.to_text(), owner=owner))


def _head(behind: Services, name: str, *, owner: str) -> Head | None:
    """The head that a name means for its owner, also a retired one. One read."""
    found = behind.workflows.look([(owner, name, None), (OPERATOR, name, None)])
    own, shared = found.get((owner, name, None)), found.get((OPERATOR, name, None))
    if isinstance(own, Head):
        return own
    return shared if isinstance(shared, Head) and shared.is_shared else None


def own_head(behind: Services, name: str, *, owner: str) -> Head:
    """A head that its owner may change. Raises NotFound for the operator's, and for a retired one."""
    head = behind.workflows.head(owner, name)
    if head is None or head.is_retired:
        raise NotFound(f"there is no workflow {name!r} of yours; what the operator shares is changed by the operator.")
    return head


def described_for(
    behind: Services, found: Iterable[Listed], object_info: Mapping[str, Any] | None
) -> Iterator[Described]:
    """Workflows with schemas and examples. Those that cannot be read are left out.

    Args:
        object_info: what the workers declare now, for the choices.
    """

    def described(one: Listed) -> Described | None:
        # The version ends here: whole ones of all workflows may have more than the memory.
        version = version_of(behind, one)
        return None if version is None else views.as_described(version, object_info)

    yield from filter(None, behind.beside.map(described, found))


def version_of(behind: Services, one: Listed, *, key: str = "") -> Version | None:
    """The version that runs now; None if it is gone or cannot be read: the others are shown all the same.

    What is at hand is not looked up again: no read of the table.

    Args:
        key: decides between the versions of an alias that has several.
    """
    try:
        if one.head is None:
            return behind.named.find(Reference(one.name, None, NUMBER), owner=OPERATOR)
        return behind.named.behind(one.head, key=key)
    except ComfyError:
        log.warning("a named workflow is not described", workflow=one.name, exc_info=True)
        return None
