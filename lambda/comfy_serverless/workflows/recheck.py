"""Every alias of every owner is held against the workers again, by itself, once what they declare has changed.

    what workers declare and the image's files are ──► is a round due? ──► a step: as many names as there is time for
                                                               ├─► `checkup#{owner}`: what would fail, for its owner
                                                               └─► `care`: how far, and how many would fail

A round goes through all owners in alphabetical order, in steps of some seconds; a newer declaration begins it anew.
What is pushed was checked as it was pushed; a round a day, and one an hour while something fails, see it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

from comfy_serverless.aws.dynamodb import Item, Table, Update, now_s, now_text
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.observability import log
from comfy_serverless.table.columns import read_columns
from comfy_serverless.workflows.deployed import Deployed
from comfy_serverless.workflows.doctor import Examined, examined, examined_file, heads_and_files, name_of
from comfy_serverless.workflows.image_files import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comfy_serverless.connector.import_report import NotImported
    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.workflows.finding import Finder
    from comfy_serverless.workflows.items import Head
    from comfy_serverless.workflows.reader import WorkflowReader

#: The time between two rounds, in seconds: while nothing fails, and while something does, which may have been mended.
_AGAIN_S, _AGAIN_WHILE_BROKEN_S = 86_400, 3_600
#: How often a step may end nobody knows how, before the name behind it is passed over.
_MOST_TRIES: Final = 3
#: What is kept of an owner's workflows that would fail: so many of them, and so much of the first reason.
_MOST_KEPT, _MOST_LETTERS = 50, 300
#: How long what was found is kept, in seconds: owners whose keys are gone are not looked at again.
_KEPT_S: Final = 30 * 86_400
#: The keys of the items: how far a round is; and what was found of an owner.
_STATE: Final = ("care", "workflows")
_FOUND, _LAST = "checkup", "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How far a round has come. Times are in seconds since 1970.

    Attributes:
        stamp: what the workers declared, and the files of the image were, when it began.
        begun: when that was.
        owner, name: whose workflow was examined last, and which.
        versions, breaks: how many were examined, and how many of these would fail.
        tries: how often the step behind this place was begun.
        step: counts writings, so that two functions at once do not do the same.
        is_over: whether all owners have been gone through.
        last_breaks: how many would fail by the last round that was whole; -1 before there was one.
    """

    stamp: str
    begun: int
    owner: str = ""
    name: str = ""
    versions: int = 0
    breaks: int = 0
    tries: int = 0
    step: int = 0
    is_over: bool = False
    last_breaks: int = -1

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    def is_due_again(self, now: int) -> bool:
        """Whether what it has found may not be so any more, though the workers are the same."""
        return now >= self.begun + (_AGAIN_WHILE_BROKEN_S if self.last_breaks > 0 else _AGAIN_S)


def due(last: Round | None, stamp: str, *, now: int) -> Round | None:
    """The round to go on with, or to begin; None if there is nothing to do.

    Args:
        stamp: what the workers declare and the image's files are; "" if nobody has told the former.
    """
    if not stamp:
        return None
    if last is None:
        return Round(stamp=stamp, begun=now)
    if last.stamp != stamp or (last.is_over and last.is_due_again(now)):
        return Round(stamp=stamp, begun=now, step=last.step, last_breaks=last.last_breaks)
    return None if last.is_over else last


@dataclass(slots=True, kw_only=True)
class Found:
    """What a round has found of an owner's workflows.

    Attributes:
        begun: the beginning of the round, which tells it from others.
        at: when it was written.
        release_version: what the workers' image was built from; "" if that is not known.
        versions: how many were examined; `breaks` of them would fail, and `broken` has the first of these.
        is_over: whether all of the owner's have been examined.
    """

    begun: int
    at: str = ""
    release_version: str = ""
    versions: int = 0
    breaks: int = 0
    is_over: bool = False
    broken: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, table: Table, owner: str) -> Self | None:
        """What was found last; None before the first round."""
        item = table.get(f"{_FOUND}#{owner}", _LAST)
        return None if item is None else cls.from_item(item)

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, {**item, "broken": json.loads(item.get("broken", "[]"))}))

    def add(self, one: Examined) -> None:
        """Count a version, and keep what is wrong with it."""
        self.versions += 1
        self.breaks += one.breaks
        if one.breaks and len(self.broken) < _MOST_KEPT:
            message = next(finding.message for finding in one.findings if finding.breaks)
            told = {"name": one.name, "version": one.number, "aliases": sorted(one.aliases)}
            self.broken.append({**told, "message": message[:_MOST_LETTERS]})

    def write(self, table: Table, owner: str) -> None:
        """Keep it for the owner."""
        item = {**asdict(self), "at": now_text(), "broken": json.dumps(self.broken)}
        table.update(Update(pk=f"{_FOUND}#{owner}", sk=_LAST, assign={**item, "expires": now_s() + _KEPT_S}))

    def to_json(self) -> dict[str, Any]:
        """What the owner is told."""
        return {
            "at": self.at,
            "release_version": self.release_version or None,
            "is_over": self.is_over,
            "versions": self.versions,
            "breaks": self.breaks,
            "broken": self.broken,
        }


@dataclass(frozen=True, slots=True)
class Recheck:
    """Goes on with the rounds of one deployment.

    Attributes:
        named: finds the files in the image.
        lost: returns the packs that did not import on the workers.
    """

    table: Table
    keys: ApiKeyStore
    reader: WorkflowReader
    named: Finder
    declarations: DeclarationsReader
    lost: Callable[[], Sequence[NotImported]]

    def go_on(self, *, until: float, now: Callable[[], float] = time.monotonic) -> int | None:
        """Do a step, if a round is due; return how many versions would fail by the last whole round. None before it.

        Args:
            until: when no other name is begun, on the clock `now`.

        Raises:
            AssetUnavailable: S3 does not answer.
        """
        item = self.table.get(*_STATE)
        last = None if item is None else Round.from_item(item)
        sha256 = self.declarations.sha256
        files = ImageFiles.of(self.named)
        of_build = f"{self.declarations.image()}/{self.declarations.release()}"
        stamp = f"{of_build}/{sha256}/{files.sha256[:12]}" if sha256 else ""
        if (todo := due(last, stamp, now=now_s())) is not None and (deployed := self._deployed()) is not None:
            begun = replace(todo, tries=todo.tries + 1)
            if self._write(begun, after=last):
                begun = replace(begun, step=begun.step + 1)
                if not begun.owner and not begun.name:
                    files.keep(self.table)
                last = self._step(begun, deployed, lambda: now() >= until)
                self._write(last, after=begun)
        return None if last is None or last.last_breaks < 0 else last.last_breaks

    def _deployed(self) -> Deployed | None:
        return Deployed.told(self.declarations, self.lost)

    def _write(self, one: Round, *, after: Round | None) -> bool:
        """Write a round, unless another function has gone on with it meanwhile."""
        seen = {} if after is None else {"seen": after.step}
        condition = "attribute_not_exists(pk)" if after is None else "#step = :seen"
        assign = {**asdict(one), "step": (0 if after is None else after.step) + 1}
        pk, sk = _STATE
        return self.table.try_update(Update(pk=pk, sk=sk, assign=assign, condition=condition, values=seen or None))

    def _step(self, begun: Round, deployed: Deployed, is_late: Callable[[], bool]) -> Round:
        """Examine names, owner by owner, until it is late; the round as it is then."""
        place, is_hopeless = begun, begun.tries > _MOST_TRIES
        owners = [OPERATOR, *sorted({key.owner for key in self.keys.list()} - {OPERATOR})]
        for owner in (one for one in owners if one >= begun.owner):
            found = self._found(owner, begun, deployed)
            for one in self._names(owner, after=begun.name if owner == begun.owner else ""):
                name = name_of(one)
                if is_hopeless:
                    log.error("the check of a named workflow did not end: passed over", owner=owner, workflow=name)
                versions = () if is_hopeless else self._examined(one, deployed)
                is_hopeless = False
                for version in versions:
                    found.add(version)
                    place = replace(place, versions=place.versions + 1, breaks=place.breaks + version.breaks)
                place = replace(place, owner=owner, name=name, tries=0)
                if is_late():
                    found.write(self.table, owner)
                    return place
            found.is_over = True
            found.write(self.table, owner)
        return replace(place, is_over=True, tries=0, last_breaks=place.breaks)

    def _names(self, owner: str, *, after: str) -> Iterator[Head | str]:
        """What an owner's runs can get, behind a name; the operator has the files in the image, too."""
        files = self.named.files() if owner == OPERATOR else []
        return heads_and_files(self.reader.heads(owner, after=after), files, after=after)

    def _examined(self, one: Head | str, deployed: Deployed) -> Iterable[Examined]:
        if isinstance(one, str):
            return (examined_file(self.named, one, deployed),)
        return examined((one,), self.reader, deployed)

    def _found(self, owner: str, begun: Round, deployed: Deployed) -> Found:
        """What this round has found of an owner so far."""
        before = Found.of(self.table, owner) if owner == begun.owner and begun.name else None
        if before is not None and before.begun == begun.begun:
            return before
        return Found(begun=begun.begun, release_version=deployed.release)
