"""Every version that an alias leads to, held against workers: those that are live, or those of a release.

heads ──► each version with a weight ──► its document ──► findings_of ──► Examined
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.errors import AssetUnavailable, ComfyError
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.checkup import Finding, Kind, Severity
from comfy_serverless.workflows.deployed import Deployed, findings_of
from comfy_serverless.workflows.reference import LIVE, NAME, Reference

if TYPE_CHECKING:
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.workflows.finding import Finder
    from comfy_serverless.workflows.items import Head
    from comfy_serverless.workflows.reader import WorkflowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A version that runs can get, and what is wrong with it.

    Attributes:
        owner: whose it is; "" is the operator.
        aliases: those that lead to it, each with the share of its runs, from 0 to 1.
    """

    owner: str
    name: str
    number: int
    aliases: Mapping[str, float]
    findings: tuple[Finding, ...]

    @property
    def breaks(self) -> bool:
        """Whether a run of it fails, or lacks what it has promised."""
        return any(one.breaks for one in self.findings)

    def __str__(self) -> str:
        """What is wrong with it, to the operator: `poster@live (version 3) of team: …`, with the first reason."""
        reason = next((f": {one.message}" for one in self.findings if one.breaks), "")
        aliases = ", ".join(sorted(self.aliases))
        return f"{self.name}@{aliases} (version {self.number}) of {self.owner or 'the operator'}{reason}"

    def to_json(self) -> dict[str, Any]:
        """What owners are told; whose it is they know."""
        return {
            "name": self.name,
            "version": self.number,
            "aliases": dict(self.aliases),
            "breaks": self.breaks,
            "findings": [one.to_json() for one in self.findings],
        }


def everybodys_heads(keys: ApiKeyStore, reader: WorkflowReader) -> list[Head]:
    """The workflows of everybody who has, or had, a key, and the operator's, as far as runs can get them."""
    owners = [OPERATOR, *sorted({key.owner for key in keys.list()} - {OPERATOR})]
    found = (head for owner in owners for head in reader.heads(owner))
    return [head for head in found if not head.is_retired and head.aliases]


def examined(
    heads: Iterable[Head],
    reader: WorkflowReader,
    deployed: Deployed | None,
    *,
    each: Callable[..., Iterable[Examined]] = map,
) -> Iterator[Examined]:
    """Every version that an alias of these heads leads to, in their order. Retired names have no runs, so none of them.

    Args:
        each: maps a function; that of an executor reads several documents at once.

    Raises:
        AssetUnavailable: S3 does not answer. What else is wrong with a document is a finding.
    """
    led_to = [(head, number, shares) for head in heads if not head.is_retired for number, shares in _versions(head)]

    def examine(one: tuple[Head, int, dict[str, float]]) -> Examined:
        head, number, shares = one
        return Examined(
            owner=head.owner,
            name=head.name,
            number=number,
            aliases=shares,
            findings=_findings(head, number, reader, deployed),
        )

    yield from each(examine, led_to)


def heads_and_files(heads: Iterable[Head], files: Iterable[str], *, after: str = "") -> Iterator[Head | str]:
    """Heads, and files in the image that none of them hides, by name. The heads come in alphabetical order.

    Args:
        after: only files behind this name. Those whose names no workflow can have are not among them.
    """
    shown = sorted(one for one in files if one > after and NAME.fullmatch(one))
    ranked: Iterator[tuple[str, int, Head | str]] = heapq.merge(
        ((head.name, 0, head) for head in heads), ((file, 1, file) for file in shown), key=lambda each: each[:2]
    )
    last = ""
    for name, _, one in ranked:
        if name != last:
            last = name
            yield one


def name_of(one: Head | str) -> str:
    """The name of a head, or of a file."""
    return one if isinstance(one, str) else one.name


def examined_file(named: Finder, name: str, deployed: Deployed | None) -> Examined:
    """A file in the image, version 0, held against the workers. It runs as it stands: callers need bring nothing."""
    findings: tuple[Finding, ...]
    try:
        findings = findings_of(named.find(Reference(name, None, 0), owner=OPERATOR), deployed)
    except ComfyError as error:
        findings = of_unusable(error)
    told = tuple(one for one in findings if one.kind is not Kind.FILE)
    return Examined(owner=OPERATOR, name=name, number=0, aliases={LIVE: 1.0}, findings=told)


def _versions(head: Head) -> Iterator[tuple[int, dict[str, float]]]:
    """The versions that aliases lead to, each with its share of the runs of every alias."""
    found: dict[int, dict[str, float]] = {}
    for alias, meaning in sorted(head.aliases.items()):
        whole = sum(meaning.weights.values())
        for number, weight in meaning.weights.items():
            if weight > 0:
                found.setdefault(number, {})[alias] = weight / whole
    yield from sorted(found.items())


def _findings(head: Head, number: int, reader: WorkflowReader, deployed: Deployed | None) -> tuple[Finding, ...]:
    try:
        return findings_of(reader.document(head, head.name, number), deployed)
    except AssetUnavailable:
        raise
    except ComfyError as error:
        return of_unusable(error)


def of_unusable(error: ComfyError) -> tuple[Finding, ...]:
    """The finding of a version that cannot be read, or is no workflow."""
    return (Finding(kind=Kind.GRAPH, severity=Severity.BREAKS, message=error.message.rstrip(".")),)
