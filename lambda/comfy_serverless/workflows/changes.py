"""What changes of a head, and how that is written. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from comfy_serverless.aws.dynamodb import Update, now_text
from comfy_serverless.workflows.items import (
    COUNT_SK,
    HASH_LETTERS,
    MOST_MOVES,
    Alias,
    Head,
    Move,
    Weights,
    partition_of,
)

#: The names of an owner, retired ones among them.
MOST_NAMES: Final = 1_000
#: The letters of who has moved an alias.
LONGEST_BY: Final = 100


def moved(head: Head, alias: str, weights: Weights, *, by: str, known: Mapping[int, str]) -> Head:
    """The head with an alias that leads to these versions; `known` has the hashes of those that are new to it."""
    aliases = {**head.aliases, alias: Alias(weights=weights, before=head.weights_of(alias))}
    hashes = {**head.documents, **{version: sha256[:HASH_LETTERS] for version, sha256 in known.items()}}
    return _told(replace(head, documents=hashes), aliases, alias, by=by)


def without(head: Head, alias: str, *, by: str) -> Head:
    """The head without an alias that it has."""
    return _told(head, {other: one for other, one in head.aliases.items() if other != alias}, alias, by=by)


def _told(head: Head, aliases: Mapping[str, Alias], alias: str, *, by: str) -> Head:
    """The head with other aliases, and the move of one of them in its history."""
    after = replace(head, aliases=aliases)
    move = Move(
        alias=alias, before=head.weights_of(alias), after=after.weights_of(alias), by=by[:LONGEST_BY], at=now_text()
    )
    history = (move, *head.history)[:MOST_MOVES]
    return replace(after, documents=_meant(head.documents, aliases), history=history)


def _meant(documents: Mapping[int, str], aliases: Mapping[str, Alias]) -> dict[int, str]:
    """The documents of versions that an alias leads to."""
    meant = {version for one in aliases.values() for version in one.weights}
    return {version: sha256 for version, sha256 in documents.items() if version in meant}


def renewed(head: Head) -> Head:
    """The head as it is written next."""
    return replace(head, revision=head.revision + 1, updated_at=now_text())


def head_update(before: Head, after: Head) -> Update:
    """The write of a changed head, if nobody has changed it since it was read."""
    return Update(
        pk=partition_of(before.owner),
        sk=before.name,
        assign=after.columns(),
        condition="#revision = :seen",
        values={"seen": before.revision},
    )


def one_name_more(owner: str) -> Update:
    """The count of an owner's names and one, if that may be."""
    return Update(
        pk=partition_of(owner),
        sk=COUNT_SK,
        assign={},
        add={"names": 1},
        condition="attribute_not_exists(#names) OR #names < :most",
        values={"most": MOST_NAMES},
    )


def in_words(weights: Weights) -> str:
    """What an alias means: `version 3`, or `version 3 (90 %) and version 4 (10 %)`."""
    if len(weights) <= 1:
        return next((f"version {version}" for version in weights), "nothing")
    total = sum(weights.values())
    return " and ".join(f"version {version} ({100 * weight / total:.3g} %)" for version, weight in weights.items())


def aliases_in_words(head: Head) -> str:
    """The end of a sentence: which aliases there are."""
    return f"it has {', '.join(sorted(head.aliases))}" if head.aliases else "it has none"
