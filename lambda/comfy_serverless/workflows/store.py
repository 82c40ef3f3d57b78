"""Named workflows, kept: documents in S3, heads and versions in the table. Each change of a head is one write.

    push     document to S3 ──► [row of the version | head: latest + 1] in one transaction
    move     head, if it is as it was read

A push that dies after the document leaves an object that nobody knows; its number is given to the next push. Row and
head come together, so numbers have no gaps. Every write of a head names the revision that it has read: of two at once
one is refused, and looks again. Nothing here deletes a version or a document.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from comfy_serverless.aws.dynamodb import ConditionFailed, now_text, put_write, update_write
from comfy_serverless.errors import (
    InvalidRequest,
    InvalidWorkflow,
    NotFound,
    PayloadTooLarge,
    WorkflowChanged,
)
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES, OPERATOR
from comfy_serverless.observability import log
from comfy_serverless.retry import attempts
from comfy_serverless.workflows.changes import (
    MOST_NAMES,
    aliases_in_words,
    head_update,
    in_words,
    moved,
    one_name_more,
    renewed,
    without,
)
from comfy_serverless.workflows.items import (
    LONGEST_TITLE,
    Head,
    VersionRow,
    Weights,
    key_of,
)
from comfy_serverless.workflows.pick import are_same, checked
from comfy_serverless.workflows.reader import MOST_NUMBER, WorkflowReader
from comfy_serverless.workflows.reference import LIVE, check_alias, check_name
from comfy_serverless.workflows.version import Version

#: The most of everything: aliases of a name, letters of a note and of a description.
MOST_ALIASES: Final = 50
LONGEST_NOTE: Final = 1_000
LONGEST_DESCRIPTION: Final = 10_000
#: The most bytes of a document: what a request may have.
MAX_DOCUMENT_BYTES: Final = MAX_PAYLOAD_BYTES
#: How often a change is tried that others come before.
_TRIES: Final = 20
_LONGEST_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed(Version):
    """A version that was pushed; `is_new` says whether it was made now, or was there with the same content."""

    is_new: bool


class WorkflowStore(WorkflowReader):
    """The named workflows of one table, to be read and changed. Thread-safe."""

    def push(self, version: Version, *, alias: str | None = None, if_head: int | None = None) -> Pushed:
        """Keep a version under the next number, and let `alias` lead to it.

        The first version of a name gets the alias `live`, unless another is given. What is the same as the newest
        version makes no new one (`Pushed.is_new`), but the alias moves to it. A retired name comes back.

        Args:
            version: with any number: its own is the last one's and 1. `created_at` is now, unless it has one.
            if_head: the number that the newest version must have; 0 for a new name.

        Raises:
            InvalidRequest: its name, the alias, its note or description cannot be kept, or there are too many.
            PayloadTooLarge: its document has too many bytes.
            WorkflowChanged: the newest version is another than `if_head`.
        """
        check_name(version.name)
        if alias is not None:
            check_alias(alias)
        _check_texts(version)
        content = content_of(version)
        made = replace(version, created_at=version.created_at or now_text())
        for attempt in attempts(_pauses()):
            head = self.head(made.owner, made.name)
            latest = 0 if head is None else head.latest
            if if_head is not None and if_head != latest:
                raise WorkflowChanged(
                    f"the newest version of the workflow {made.name!r} is {latest}, not {if_head}: look what has been "
                    "pushed meanwhile, and push again.",
                    details={"latest": latest, "expected": if_head},
                )
            if head is not None and head.content == content and (same := self._newest(head)) is not None:
                return self._pushed_again(head, same, alias, by=made.created_by)
            try:
                return self._push_next(head, replace(made, number=latest + 1), alias, content)
            except ConditionFailed as failed:
                if failed.index == 2:  # the third write: the count of names
                    raise InvalidRequest(
                        f"there are {MOST_NAMES:,} workflows already, retired ones among them: push under the name of "
                        "one that is not needed any more."
                    ) from None
                if attempt.is_last:
                    raise _too_busy(made.name) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def move(
        self,
        owner: str,
        name: str,
        alias: str,
        targets: Mapping[int, float],
        *,
        by: str,
        expected: Mapping[int, float] | None = None,
    ) -> Head:
        """Let an alias lead to these versions, each with its weight; a new alias is made.

        Of two who move it at once one is refused.

        Args:
            by: the name of the key, or of the person.
            expected: what it must mean now; {} for nothing. None: what it means when this begins.

        Raises:
            NotFound: there is no such workflow, or no such version of it.
            InvalidRequest: the weights cannot be, or there are too many aliases.
            WorkflowChanged: it means something else than expected.
        """
        check_alias(alias)
        weights = checked(targets)
        before = None if expected is None else checked(expected) if expected else {}
        return self._move(owner, name, alias, lambda _: weights, by=by, expected=before)

    def rollback(
        self, owner: str, name: str, alias: str, *, by: str = "", expected: Mapping[int, float] | None = None
    ) -> Head:
        """Let an alias mean again what it meant before it was last moved. A second rollback takes the first one back.

        Raises as `move`; InvalidRequest if it meant nothing before.
        """
        check_alias(alias)

        def earlier(head: Head) -> Weights:
            found = head.aliases.get(alias)
            if found is None:
                raise NotFound(f"the workflow {name!r} has no alias {alias!r}; {aliases_in_words(head)}.")
            if not found.before:
                raise InvalidRequest(f"the alias {alias!r} of the workflow {name!r} was never moved: nothing to go to.")
            return found.before

        before = None if expected is None else checked(expected) if expected else {}
        return self._move(owner, name, alias, earlier, by=by, expected=before)

    def drop_alias(self, owner: str, name: str, alias: str, *, by: str = "") -> Head:
        """Take an alias away. Raises NotFound if there is none, and as `move`."""

        def dropped(head: Head) -> Head:
            if alias not in head.aliases:
                raise NotFound(f"the workflow {name!r} has no alias {alias!r}; {aliases_in_words(head)}.")
            return without(head, alias, by=by)

        return self._change(owner, name, dropped)

    def retire(self, owner: str, name: str) -> Head:
        """Hide a workflow and have its runs refused. Its versions and aliases stay: a push brings it back."""
        return self._change(owner, name, lambda head: replace(head, is_retired=True))

    def share(self, name: str, is_shared: bool = True) -> Head:
        """Let all owners run a workflow of the operator's, or nobody else. Jobs that were taken before run as ever.

        Raises NotFound if there is none.
        """
        return self._change(
            OPERATOR, name, lambda head: head if head.is_shared is is_shared else replace(head, is_shared=is_shared)
        )

    def _push_next(self, head: Head | None, version: Version, alias: str | None, content: str) -> Pushed:
        """Write a version under its number. Raises ConditionFailed if others have come before."""
        if version.number > MOST_NUMBER:
            raise InvalidRequest(f"the workflow {version.name!r} has {MOST_NUMBER:,} versions: take another name.")
        document = version.to_bytes()
        if len(document) > MAX_DOCUMENT_BYTES:
            raise PayloadTooLarge(
                f"the workflow {version.name!r} has {len(document):,} bytes; at most {MAX_DOCUMENT_BYTES:,} are kept. "
                "Files in it, as data: addresses, are given with each run instead."
            )
        sha256 = hashlib.sha256(document).hexdigest()
        row = VersionRow(
            owner=version.owner,
            name=version.name,
            number=version.number,
            sha256=sha256,
            created_at=version.created_at,
            created_by=version.created_by,
            note=version.note,
            release=version.release,
        )
        begun = head or Head(owner=version.owner, name=version.name, latest=0, created_at=now_text())
        after = replace(begun, latest=version.number, content=content, title=_title(version), is_retired=False)
        if (leading := alias or (LIVE if head is None else None)) is not None:
            after = moved(after, leading, {version.number: 1}, by=version.created_by, known={version.number: sha256})
        self._s3.put_object(
            Bucket=self._bucket,
            Key=key_of(version.owner, version.name, version.number, sha256),
            Body=document,
            ContentType="application/json",
        )
        writes = [put_write(row.to_item(), condition="attribute_not_exists(pk)")]
        after = renewed(after)
        if head is None:
            writes += [
                put_write(after.to_item(), condition="attribute_not_exists(pk)"),
                update_write(one_name_more(version.owner)),
            ]
        else:
            writes.append(update_write(head_update(head, after)))
        self._table.transact(writes)
        return _as_pushed(version, is_new=True)

    def _newest(self, head: Head) -> Version | None:
        """The newest version; None if it is damaged: then it can be pushed again."""
        try:
            return self.document(head, head.name, head.latest)
        except InvalidWorkflow:
            log.warning("a version of a workflow is damaged", workflow=head.name, version=head.latest, exc_info=True)
            return None

    def _pushed_again(self, head: Head, same: Version, alias: str | None, *, by: str) -> Pushed:
        """The newest version, which is what was pushed; the alias leads to it, and the name is not retired."""
        if alias is not None and head.weights_of(alias).keys() != {head.latest}:
            head = self._move(head.owner, head.name, alias, lambda _: {head.latest: 1}, by=by, expected=None)
        if head.is_retired:
            head = self._change(head.owner, head.name, lambda found: replace(found, is_retired=False))
        return _as_pushed(same, is_new=False)

    def _move(self, owner: str, name: str, alias: str, to: _Targets, *, by: str, expected: Weights | None) -> Head:
        seen: list[Weights] = [] if expected is None else [expected]

        def changed(head: Head) -> Head:
            now = head.weights_of(alias)
            if not seen:
                seen.append(now)
            if not are_same(now, seen[0]):
                raise WorkflowChanged(
                    f"the alias {alias!r} of the workflow {name!r} has been moved meanwhile: it leads to "
                    f"{in_words(now)}, not to {in_words(seen[0])}. Look what is meant, and move it again.",
                    details={"alias": alias, "weights": {str(one): weight for one, weight in now.items()}},
                )
            weights = to(head)
            if are_same(now, weights):
                return head
            if alias not in head.aliases and len(head.aliases) >= MOST_ALIASES:
                raise InvalidRequest(f"the workflow {name!r} has {MOST_ALIASES} aliases already: drop one first.")
            if beyond := [one for one in weights if not 1 <= one <= head.latest]:
                raise NotFound(
                    f"the workflow {name!r} has no version {beyond[0]} that an alias could lead to: it has 1 to "
                    f"{head.latest}."
                )
            unknown = [one for one in weights if one not in head.documents]
            known = self.hashes(owner, name, unknown) if unknown else {}
            return moved(head, alias, weights, by=by, known=known)

        return self._change(owner, name, changed)

    def _change(self, owner: str, name: str, change: _Change) -> Head:
        """Write what `change` makes of a head, if nobody has changed it since it was read; else look again."""
        for attempt in attempts(_pauses()):
            head = self.head(owner, name)
            if head is None:
                raise NotFound(f"there is no workflow {name!r}.")
            after = change(head)
            if after is head:
                return head
            try:
                return Head.from_item(self._table.update(head_update(head, renewed(after))))
            except ConditionFailed:
                if attempt.is_last:
                    raise _too_busy(name) from None
        raise AssertionError("unreachable: the last attempt returns or raises")


def content_of(version: Version) -> str:
    """The hash of what a version is to those who run it. Who has pushed it and the editor's layout are no part."""
    return hashlib.sha256(f"{version.content_sha256}\0{version.description}".encode("utf-8", "replace")).hexdigest()


_Change = Callable[[Head], Head]
_Targets = Callable[[Head], Weights]


def _pauses() -> list[float]:
    """Pauses before a change is tried again: random ones, so that those who wait do not come back at once."""
    return [random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**number)) for number in range(_TRIES - 1)]  # noqa: S311


def _check_texts(version: Version) -> None:
    for what, text, longest in (
        ("note", version.note, LONGEST_NOTE),
        ("description", version.description, LONGEST_DESCRIPTION),
        ("name of who has made it", version.created_by, LONGEST_NOTE),
        ("name of the release", version.release, LONGEST_NOTE),
    ):
        if len(text) > longest:
            raise InvalidRequest(f"the {what} has {len(text):,} letters; at most {longest:,} are kept.")


def _title(version: Version) -> str:
    first, _, _ = version.description.strip().partition("\n")
    return first[:LONGEST_TITLE]


def _as_pushed(version: Version, *, is_new: bool) -> Pushed:
    return Pushed(**{one.name: getattr(version, one.name) for one in fields(Version)}, is_new=is_new)


def _too_busy(name: str) -> WorkflowChanged:
    return WorkflowChanged(
        f"the workflow {name!r} is changed by many at once, and this change was not made: try again."
    )
