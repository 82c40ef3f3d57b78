"""The files that an editor's workflow names, kept with its request for the worker that converts it. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import NotFound


@dataclass(frozen=True, slots=True)
class KnownFile:
    """An `Asset` of which only the address is known."""

    address: S3Address


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """The addresses of the files that an editor's workflow names, as of its submission. `Assets` of one owner.

    Attributes:
        ids: addresses by the ids of assets.
        names: by the names of files.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def get(self, owner: str, asset_id: str) -> KnownFile:  # noqa: ARG002  (of one owner)
        """An asset. Raises NotFound if the workflow has named none of this id."""
        if asset_id not in self.ids:
            raise NotFound(f"there is no asset {asset_id[:100]!r} in the workflow as it was submitted.")
        return KnownFile(S3Address.parse(self.ids[asset_id]))

    def by_paths(self, owner: str, paths: Iterable[str]) -> dict[str, KnownFile]:  # noqa: ARG002  (of one owner)
        """The assets of these file names."""
        return {path: KnownFile(S3Address.parse(self.names[path])) for path in paths if path in self.names}

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {"ids": dict(self.ids), "names": dict(self.names)}

    @classmethod
    def parse(cls, kept: object) -> Self:
        """Read what is kept, of any release."""
        fields = kept if isinstance(kept, Mapping) else {}
        ids, names = fields.get("ids"), fields.get("names")
        return cls(dict(ids) if isinstance(ids, Mapping) else {}, dict(names) if isinstance(names, Mapping) else {})
