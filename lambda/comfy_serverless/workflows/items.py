"""Named workflows in the table: a head for each name, and a row for each version. No IO.

    pk workflows#OWNER   sk NAME          head: the newest version, what its aliases mean, the last moves
    pk workflows#OWNER   sk NAME#000003   row of version 3: where its document is, who has made it and when
    pk workflows#OWNER   sk #count        how many names the owner has

`#` comes before all letters that a name may have: the rows of a name follow its head. The operator's OWNER is "".
Nothing of it ends by itself: no item has `expires`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from comfy_serverless.aws.dynamodb import Item
from comfy_serverless.table.columns import read_columns, write_columns

Weights = Mapping[int, int]

#: The moves that a head tells of.
MOST_MOVES: Final = 20
#: As many letters of a document's hash are in its key, and in a head.
HASH_LETTERS: Final = 16
#: The letters of a head's title.
LONGEST_TITLE: Final = 200
#: The sort key of the count of an owner's names.
COUNT_SK: Final = "#count"
#: The owner's name has an attribute of its own because `owner` is the key of an index.
_STORED: Final = {"owner": "owner_name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What an alias means.

    Attributes:
        weights: the versions that it leads to, each with its share of all shares.
        before: what it meant before it was moved last; {} if it meant nothing.
    """

    weights: Weights
    before: Weights = field(default_factory=dict)

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        return cls(weights=_weights(item.get("weights")), before=_weights(item.get("before")))

    def to_item(self) -> Item:
        return {"weights": weights_json(self.weights), "before": weights_json(self.before)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move of an alias, for people.

    Attributes:
        before, after: what it meant; {} for nothing.
        by: the name of the key, or of the person.
        at: a moment, as the API writes them.
    """

    alias: str
    before: Weights
    after: Weights
    by: str
    at: str

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        return cls(
            alias=str(item.get("alias", "")),
            before=_weights(item.get("before")),
            after=_weights(item.get("after")),
            by=str(item.get("by", "")),
            at=str(item.get("at", "")),
        )

    def to_item(self) -> Item:
        return {
            "alias": self.alias,
            "before": weights_json(self.before),
            "after": weights_json(self.after),
            "by": self.by,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A named workflow: which versions it has, and which of them is meant.

    Attributes:
        owner: whose it is; "" is the operator.
        latest: the number of the newest version; all from 1 on are there.
        content: the hash of what the newest version is (`store.content_of`): the same pushed again is no new one.
        aliases: by their names.
        history: the last moves of aliases, the newest first.
        documents: the hashes of the documents of versions that an alias leads to.
        is_shared: whether owners may run it; only the operator's can be.
        is_retired: whether it is hidden and refused, until somebody pushes it again.
        title: what it is for, in a few words.
        revision: how often the head was changed: each change names the one before it.
    """

    owner: str
    name: str
    latest: int
    created_at: str = ""
    updated_at: str = ""
    content: str = ""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    history: tuple[Move, ...] = ()
    documents: Mapping[int, str] = field(default_factory=dict)
    is_shared: bool = False
    is_retired: bool = False
    title: str = ""
    revision: int = 0

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read the head of any release."""
        columns = read_columns(cls, item, stored=_STORED)
        columns["name"] = item["sk"]
        columns["owner"] = item["pk"].removeprefix(partition_of(""))
        columns["aliases"] = {name: Alias.from_item(one) for name, one in item.get("aliases", {}).items()}
        columns["history"] = tuple(map(Move.from_item, item.get("history", ())))
        columns["documents"] = {int(number): digest for number, digest in item.get("documents", {}).items()}
        return cls(**columns)

    def columns(self) -> Item:
        """What changes of it, as attributes: an update leaves others, of newer releases, as they are."""
        return {
            "latest": self.latest,
            "content": self.content,
            "aliases": {name: one.to_item() for name, one in self.aliases.items()},
            "history": [move.to_item() for move in self.history[:MOST_MOVES]],
            "documents": {str(number): digest for number, digest in sorted(self.documents.items())},
            "is_shared": self.is_shared,
            "is_retired": self.is_retired,
            "title": self.title[:LONGEST_TITLE],
            "updated_at": self.updated_at,
            "revision": self.revision,
        }

    def to_item(self) -> Item:
        """The item of a new head."""
        return {
            "pk": partition_of(self.owner),
            "sk": self.name,
            "owner_name": self.owner,
            "created_at": self.created_at,
            **self.columns(),
        }

    def weights_of(self, alias: str) -> Weights:
        """What an alias means; {} for nothing."""
        found = self.aliases.get(alias)
        return {} if found is None else found.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version, without its document.

    Attributes:
        number: from 1 on, in the sort key.
        sha256: of its document, in hex.
        created_by: the name of the key, or of the person.
        note: what its author says of it.
        release: the release of workers that it was checked against; "" if none was known.
    """

    owner: str
    name: str
    number: int
    sha256: str
    created_at: str = ""
    created_by: str = ""
    note: str = ""
    release: str = ""

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read the row of any release."""
        columns = read_columns(cls, item, stored=_STORED)
        name, _, number = item["sk"].partition("#")
        owner = item["pk"].removeprefix(partition_of(""))
        return cls(**{**columns, "owner": owner, "name": name, "number": int(number)})

    def to_item(self) -> Item:
        """The row as it is written, once."""
        columns = write_columns(self, stored=_STORED)
        return {"pk": partition_of(self.owner), "sk": row_sk(self.name, self.number), **columns}


def partition_of(owner: str) -> str:
    """The partition of an owner's workflows."""
    return f"workflows#{owner}"


def row_sk(name: str, number: int) -> str:
    """The sort key of a version: in the order of their numbers."""
    return f"{name}#{number:06}"


def after_rows(name: str) -> str:
    """A sort key behind a name and all of its versions, before the next name."""
    return f"{name}#~"


def key_of(owner: str, name: str, number: int, sha256: str) -> str:
    """The key of a version's document in the assets bucket: another content has another key."""
    folder = f"owners/{owner}" if owner else "operator"
    return f"workflows/{folder}/{name}/{number:06}-{sha256[:HASH_LETTERS]}.json"


def _weights(item: object) -> dict[int, int]:
    pairs = item.items() if isinstance(item, Mapping) else ()
    return {int(number): int(weight) for number, weight in sorted(pairs, key=lambda pair: int(pair[0]))}


def weights_json(weights: Weights) -> dict[str, int]:
    """The weights of an alias, as the table and JSON have them: under texts."""
    return {str(number): weight for number, weight in sorted(weights.items())}
