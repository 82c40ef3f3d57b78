"""The workflows of the image, version 0, for whoever promotes a release: the caretaker keeps them in the table.

    the files of its image ──► a round of checks begins ──► `checkup#`: `files`, and `file#{name}` for each
                                                                          └──► held against a release before it is live

No function of a stack asks its image for another one, and an operator's machine may have other files, or none. A file
that has more than an item holds is named without what is in it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from comfy_serverless.aws.dynamodb import Item, Table, Update, now_s
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.doctor import Examined, examined_file
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.reference import NAME

if TYPE_CHECKING:
    from comfy_serverless.workflows.deployed import Deployed

#: The keys of the items: the names, and a file.
_PK: Final = f"checkup#{OPERATOR}"
_NAMES, _FILE = "files", "file#"
#: The most that one item holds of a file, packed and in letters, in bytes: DynamoDB takes 400 kB.
_MOST_BYTES: Final = 350_000
#: How long they are kept, in seconds: each round keeps them anew, at least once a day.
_KEPT_S: Final = 30 * 86_400


class Texts(NamedTuple):
    """What is in a file of the image, and in that of its inputs; the latter is empty if nobody has chosen any."""

    workflow: bytes
    choices: bytes = b""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files of an image by their names, as far as a named workflow can have them.

    Attributes:
        too_large: names of those whose content is not kept.
    """

    texts: Mapping[str, Texts]
    too_large: tuple[str, ...] = ()

    @classmethod
    def of(cls, named: Finder) -> Self:
        """Those that the image of this process has."""
        found = {name: Texts(*texts) for name, texts in named.file_texts().items() if NAME.fullmatch(name)}
        return cls(found)

    @classmethod
    def kept(cls, table: Table) -> Self | None:
        """Those that the caretaker of a deployment has kept; None if it has not yet."""
        item = table.get(_PK, _NAMES)
        if item is None:
            return None
        told = names_in(item)
        items = table.get_all([(_PK, f"{_FILE}{name}") for name in told["names"]])
        found = {item["sk"].removeprefix(_FILE): texts_in(item) for item in items}
        lost = (name for name in told["names"] if name not in found)
        return cls(dict(sorted(found.items())), (*told["too_large"], *lost))

    @property
    def sha256(self) -> str:
        """Of all that is in them; another one whenever a file is another."""
        whole = hashlib.sha256()
        for name, texts in sorted(self.texts.items()):
            for part in (name.encode(), *texts):
                whole.update(f"{len(part)} ".encode() + part)
        return whole.hexdigest()

    def keep(self, table: Table) -> None:
        """Keep them for whoever promotes a release."""
        packed = {name: _packed(texts) for name, texts in sorted(self.texts.items())}
        fitting = [name for name, content in packed.items() if len(content) <= _MOST_BYTES]
        expires = now_s() + _KEPT_S
        for name in fitting:
            assign = {"content": packed[name], "expires": expires}
            table.update(Update(pk=_PK, sk=f"{_FILE}{name}", assign=assign))
        told = json.dumps({"names": fitting, "too_large": [name for name in packed if name not in fitting]})
        table.update(Update(pk=_PK, sk=_NAMES, assign={"told": told, "expires": expires}))

    def without(self, names: Collection[str]) -> ImageFiles:
        """Without those whose names a workflow of the table has: that one runs in their place."""
        texts = {name: one for name, one in self.texts.items() if name not in names}
        return ImageFiles(texts, tuple(name for name in self.too_large if name not in names))

    def named(self, name: str) -> ImageFiles:
        """That of one name alone."""
        return self.without({one for one in (*self.texts, *self.too_large) if one != name})

    def examined(self, deployed: Deployed | None) -> list[Examined]:
        """Each held against workers, by its name."""
        with tempfile.TemporaryDirectory() as folder:
            for name, texts in self.texts.items():
                (Path(folder) / f"{name}.json").write_bytes(texts.workflow)
                if texts.choices:
                    (Path(folder) / f"{name}.yaml").write_bytes(texts.choices)
            finder = Finder(None, Path(folder), lambda: None if deployed is None else deployed.object_info)
            return [examined_file(finder, name, deployed) for name in sorted(self.texts)]


def names_in(item: Item) -> dict[str, Any]:
    """The names that an item tells: of files that are kept (`names`), and of those that are `too_large`."""
    return {"names": [], "too_large": [], **json.loads(item.get("told", "{}"))}


def _packed(texts: Texts) -> str:
    content = json.dumps([base64.b64encode(text).decode() for text in texts]).encode()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def texts_in(item: Item) -> Texts:
    """What is in the file that an item is of."""
    packed = gzip.decompress(base64.b64decode(item["content"]))
    return Texts(*(base64.b64decode(text) for text in json.loads(packed)))
