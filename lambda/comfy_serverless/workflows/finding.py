"""Finds what a name means, and makes jobs of it: what every door asks (`jobs.named`).

    NAME ──► the owner's own ──► one that the operator shares ──► a file in the image
             └──────── one read of the table ────────┘
    NAME@0 ──────────────────────────────────────────────────────► a file in the image

A name of the owner's hides the operator's. Heads are read each time, so that a moved alias counts at once; documents
never change, and are kept. That something is not there is never kept.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import AssetUnavailable, InvalidRequest, NotFound
from comfy_serverless.graph.near import Guesses
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.observability import log
from comfy_serverless.redaction import redacted
from comfy_serverless.workflows.chance import is_random
from comfy_serverless.workflows.changes import MOST_NAMES, aliases_in_words
from comfy_serverless.workflows.dropped import place_for
from comfy_serverless.workflows.folder import NUMBER, Folder
from comfy_serverless.workflows.items import HASH_LETTERS, Head, VersionRow, Weights
from comfy_serverless.workflows.kept import KeptVersions
from comfy_serverless.workflows.meant import Meant, pinned_name
from comfy_serverless.workflows.pick import key_for, pick
from comfy_serverless.workflows.reference import LIVE, Reference
from comfy_serverless.workflows.request import check_values, expand
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from comfy_serverless.jobs.line_ids import Question
    from comfy_serverless.workflows.reader import WorkflowReader
    from comfy_serverless.workflows.schema import InputCheck

Declarations = Callable[[], Mapping[str, Any] | None]

#: The checks that are kept.
_KEPT_CHECKS: Final = 200
#: The names that a message lists.
_MOST_LISTED: Final = 20
_Found = TypeVar("_Found")


class Finder:
    """Names of one deployment. Implements `jobs.named.NamedWorkflows`. Thread-safe.

    Args:
        store: None where there is no table: only the image's files have names.
        folder: WORKFLOWS_DIR.
        declarations: what the workers' nodes are, for choices that are true now; None where nobody has told.
    """

    def __init__(self, store: WorkflowReader | None, folder: Path | None, declarations: Declarations) -> None:
        self._store = store
        self._folder = Folder(folder)
        self._declarations = declarations
        self._documents = KeptVersions()
        self._checks: OrderedDict[tuple[str, str, int], _Check] = OrderedDict()
        self._lock = threading.Lock()
        self._remembered: dict[tuple[str, str, bool], _Looked] | None = None

    def find(self, reference: Reference | str, *, owner: str, key: str = "") -> Version:
        """The version that a reference means. One read of the table, and one of S3 for what was not read before.

        Args:
            owner: who asks; "" is the operator, who has what is shared and what is not.
            key: decides between the versions of an alias that has several.

        Raises:
            NotFound: there is no such workflow, alias or version for this owner; the message says which there are.
            InvalidRequest: no workflow can be called so.
            InvalidWorkflow: the version is damaged, or a newer release has written it.
            AssetUnavailable: the table or S3 does not answer.
        """
        return self._found_or_unknown(Meant.of(reference), owner=owner, key=key)

    def behind(self, head: Head, alias: str = LIVE, *, key: str = "") -> Version:
        """The version behind an alias of a head that is at hand: no read of the table. Raises as `find`."""
        number = number_behind(head, alias, key=key)
        return self._document(head, number, head.documents.get(number))

    def check_of(self, version: Version) -> InputCheck:
        """The check of a version's inputs, with the choices that there are now. Made once for both."""
        from comfy_serverless.workflows.schema import InputCheck

        declared = self._declarations()
        key = (version.owner, version.name, version.number)
        with self._lock:
            known = self._checks.get(key)
            if known is not None and known.version() is version and known.declared is declared:
                self._checks.move_to_end(key)
                return known.check
        check = InputCheck.of(version, declared)
        with self._lock:
            for stale in [one for one, kept in self._checks.items() if not kept.may_serve(declared)]:
                del self._checks[stale]
            self._checks[key] = _Check(weakref.ref(version), declared, check)
            while len(self._checks) > _KEPT_CHECKS:
                self._checks.popitem(last=False)
        return check

    def expand(
        self, request: JobRequest, *, owner: str, key: str, strict: bool = False, was_taken: bool = False
    ) -> JobRequest:
        """The request with the workflow's graph in it, if `workflow` is a name; otherwise the request itself.

        Raises as `jobs.named.NamedWorkflows.expand`.

        Args:
            strict: whether inputs have names only, and no addresses.
        """
        if not request.is_named:
            return request
        version = self._required(request, owner=owner, key=key, was_taken=was_taken)
        self._check_known(version, request)
        return expand(request, version, check=self.check_of(version), strict=strict, seed=key)

    def pinned(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        """The request with the number of the version in its name, and its inputs checked.

        Where no folder is known, a name that nobody has pushed is left to the worker: its image may have it. One of the
        operator's is pinned as `shared/NAME@3`, so that a workflow of the owner's that is pushed meanwhile is not taken
        for it.

        Raises as `jobs.named.NamedWorkflows.pinned`.
        """
        if not request.is_named:
            return request
        meant = Meant.of(str(request.workflow))
        if self._folder.path is None and meant.may_be_file:
            version = self._refused(lambda: self._found(meant, owner=owner, key=key))
            if version is None:
                return request
        else:
            version = self._required(request, owner=owner, key=key)
        self._check_known(version, request)
        check_values(request, version, check=self.check_of(version), strict=False)
        return request.model_copy(update={"workflow": pinned_name(version, owner)})

    def with_file(self, workflow: str, address: str, *, media: str, owner: str, key: str) -> JobRequest:
        """A request for a workflow, pinned, that gets a file: in the only input that takes files of its kind.

        Of a file in the image that nobody has chosen inputs of, its only loader of images takes it.

        Raises as `jobs.named.NamedWorkflows.with_file`.
        """
        version = self._refused(lambda: self._found_or_unknown(Meant.of(workflow), owner=owner, key=key))
        place = place_for(version, media=media, address=address, has_choices=self._folder.has_choices(version.name))
        return JobRequest.parse({"workflow": pinned_name(version, owner), "inputs": {place: address}})

    def draws(self, question: Question, *, owner: str) -> bool:
        """Whether something random is left in a workflow, in any version that its name may mean now.

        Raises as `jobs.named.NamedWorkflows.draws`.
        """
        meant = Meant.of(question.workflow)
        versions = self._refused(lambda: list(self._all_of(meant, owner)))
        return any(is_random(version, question) for version in versions)

    def remembering(self) -> Finder:
        """The same workflows for many requests in a row: where a name leads is looked up once."""
        other = copy(self)
        other._remembered, other._folder = {}, self._folder.remembering()
        return other

    def visible(self, owner: str) -> Iterator[Head]:
        """The heads of the workflows that an owner may run: his own, then those that the operator shares.

        Those that are retired, and those that a name of his own hides, are not among them.
        """
        if self._store is None:
            return
        hidden = set()
        for head in self._store.heads(owner):
            hidden.add(head.name)
            if not head.is_retired:
                yield head
        if owner != OPERATOR:
            shared = (head for head in self._store.heads(OPERATOR) if head.is_shared and not head.is_retired)
            yield from (head for head in shared if head.name not in hidden)

    def file_texts(self) -> dict[str, tuple[bytes, bytes]]:
        """What is in each file of the image, and in that of its inputs (empty if there is none), by name."""
        return self._folder.texts()

    def files(self) -> list[str]:
        """The names of the image's files."""
        return self._folder.names()

    def _check_known(self, version: Version, request: JobRequest) -> None:
        """Raise AssetUnavailable if a file's inputs have names, and nobody can tell yet what they mean."""
        is_unknown = not version.graph and self._folder.has_choices(version.name)
        if is_unknown and any("." not in name for name in request.inputs):
            raise AssetUnavailable(
                f"what the inputs of the workflow {version.name!r} mean is not known yet, because no worker has told "
                "what nodes it has: send it again when one has started."
            )

    def _required(self, request: JobRequest, *, owner: str, key: str, was_taken: bool = False) -> Version:
        """What a request's name means. Raises InvalidRequest if it means nothing."""
        meant = Meant.of(str(request.workflow))
        return self._refused(lambda: self._found_or_unknown(meant, owner=owner, key=key, was_taken=was_taken))

    def _found_or_unknown(self, meant: Meant, *, owner: str, key: str, was_taken: bool = False) -> Version:
        found = self._found(meant, owner=owner, key=key, was_taken=was_taken)
        if found is None:
            raise self._unknown(meant, owner)
        return found

    def _refused(self, find: Callable[[], _Found]) -> _Found:
        try:
            return find()
        except NotFound as error:
            raise InvalidRequest(error.message, details=error.details) from error

    def _found(self, meant: Meant, *, owner: str, key: str, was_taken: bool = False) -> Version | None:
        """The version that is meant; None if nobody has a workflow of this name. Raises as `find`.

        Args:
            was_taken: whether a job runs it that may have been taken before its workflow was retired, or was shared no
                more: then a version that is named by its number is found all the same.
        """
        looked = self._look(meant, owner, was_taken=was_taken)
        if (head := looked.head) is None or meant.reference is None:
            return self._file(meant)
        if head.is_retired and not (was_taken and meant.reference.version):
            if head.owner != owner:
                return self._file(meant)
            raise NotFound(f"the workflow {head.name!r} is retired: push it again to bring it back.")
        if meant.reference.version is not None:
            row = looked.rows.get(head.owner)
            if row is None:
                raise NotFound(
                    f"the workflow {head.name!r} has no version {meant.reference.version}: it has 1 to {head.latest}."
                )
            return self._document(head, row.number, row.sha256)
        return self.behind(head, meant.reference.alias or LIVE, key=key)

    def _all_of(self, meant: Meant, owner: str) -> Iterator[Version]:
        """The versions that a name may mean now. Raises as `find`."""
        head = self._look(meant, owner).head
        if head is None or head.is_retired or meant.reference is None or meant.reference.version is not None:
            yield self._found_or_unknown(meant, owner=owner, key="")
            return
        for number in _weights(head, meant.reference.alias or LIVE):
            yield self._document(head, number, head.documents.get(number))

    def _look(self, meant: Meant, owner: str, *, was_taken: bool = False) -> _Looked:
        """What the table has of a name: one read, unless it is remembered, or the image has what is meant."""
        if self._store is None or meant.reference is None or self._is_of_image(meant):
            return _Looked(None, {})
        remembered = (owner, meant.text, was_taken)
        if self._remembered is not None and (known := self._remembered.get(remembered)) is not None:
            return known
        name, number = meant.reference.name, meant.reference.version
        whose = [OPERATOR] if meant.is_shared else list(dict.fromkeys((owner, OPERATOR)))
        keys: list[tuple[str, str, int | None]] = [(one, name, None) for one in whose]
        keys += [(one, name, number) for one in whose if number]
        try:
            found = self._store.look(keys)
        except (ClientError, BotoCoreError, TimeoutError) as error:
            raise AssetUnavailable(
                f"the workflow {name!r} could not be looked up, because the table does not answer: try again."
            ) from error
        heads = (head for one in whose if isinstance(head := found.get((one, name, None)), Head))
        was_shared = was_taken and meant.is_shared and bool(number)
        head = next((head for head in heads if head.owner == owner or head.is_shared or was_shared), None)
        rows = {row.owner: row for row in found.values() if isinstance(row, VersionRow)}
        looked = _Looked(head, rows)
        if self._remembered is not None:
            self._remembered[remembered] = looked
        return looked

    def _document(self, head: Head, number: int, sha256: str | None) -> Version:
        kept = (head.owner, head.name, number, (sha256 or "")[:HASH_LETTERS])
        if (version := self._documents.get(kept)) is not None:
            return version
        if self._store is None:
            raise AssertionError("a head comes from the store")
        version = self._store.document(head, head.name, number) if sha256 is None else self._store.read(*kept)
        self._documents.put(kept, version)
        return version

    def _is_of_image(self, meant: Meant) -> bool:
        """Whether a file is meant, whatever the table has: by its number, or by a folder that is called `shared`."""
        if meant.is_shared:
            return meant.file_text in self._folder.names()
        return meant.is_of_image and self._file(meant) is not None

    def _file(self, meant: Meant) -> Version | None:
        """What the image has of this name. Raises NotFound if it has it, but no such alias or version."""
        if meant.is_shared and not self._is_of_image(meant):
            return None
        if meant.reference is None or meant.file_text in self._folder.names():
            return self._folder.version(meant.file_text, self._declarations())
        version = self._folder.version(meant.reference.name, self._declarations())
        if version is None or meant.is_of_image or meant.reference.alias == LIVE:
            return version
        raise NotFound(
            f"the workflow {version.name!r} is a file in the image: it has version {NUMBER} alone, and no alias but "
            f"{LIVE!r}."
        )

    def _unknown(self, meant: Meant, owner: str) -> NotFound:
        """What to say of a name that nobody has: the owner hears of what he may run, and of nothing else."""
        if self._store is None and self._folder.path is None:
            return NotFound(
                f"the workflow {meant.text[:200]!r} is a name, but WORKFLOWS_DIR is not set: "
                "send the workflow itself, or the s3:// address of one."
            )
        names = sorted({*self._names(owner), *self._folder.names()})
        near = Guesses().near(meant.name.removesuffix(".json"), names)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        listed = f"{', '.join(names[:_MOST_LISTED])}{more}"
        hint = f"did you mean {near[0]!r}?" if near else f"there are {listed or 'none'}."
        return NotFound(f"there is no workflow {meant.name[:200]!r}; {hint}")

    def _names(self, owner: str) -> list[str]:
        """The names of workflows that an owner may run, as far as they can be listed: a hint is not worth a failure."""
        try:
            return [head.name for head in islice(self.visible(owner), MOST_NAMES)]
        except (ClientError, BotoCoreError) as error:
            log.warning("the names of workflows cannot be listed", error=redacted(error))
            return []


def number_behind(head: Head, alias: str = LIVE, *, key: str = "") -> int:
    """The number of the version that an alias leads to, for this key. Raises NotFound if there is no such alias."""
    weights = _weights(head, alias)
    return pick(weights, key_for(head.name, alias, key)) if len(weights) > 1 else next(iter(weights))


def _weights(head: Head, alias: str) -> Weights:
    """What an alias leads to. Raises NotFound if there is none."""
    if not (weights := head.weights_of(alias)):
        near = Guesses().near(alias, head.aliases)
        hint = f"did you mean {head.name}@{near[0]}?" if near else f"{aliases_in_words(head)}."
        raise NotFound(f"the workflow {head.name!r} has no alias {alias!r}; {hint}")
    return weights


class _Looked(NamedTuple):
    """What the table has of a name.

    Attributes:
        head: the owner's own, or else that of the operator, if it is shared; None if there is neither.
        rows: of the version that is meant by its number, by owner.
    """

    head: Head | None
    rows: dict[str, VersionRow]


class _Check(NamedTuple):
    """A check, and what it was made of. A version is kept by `KeptVersions` alone, which counts its bytes."""

    version: weakref.ref[Version]
    declared: Mapping[str, Any] | None
    check: InputCheck

    def may_serve(self, declared: Mapping[str, Any] | None) -> bool:
        """Whether it may be asked for again, now that workers declare this."""
        return self.declared is declared and self.version() is not None
