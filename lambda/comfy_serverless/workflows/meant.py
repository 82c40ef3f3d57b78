"""What a request calls a workflow: a reference, the operator's of that name, or a file in the image. No IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.folder import NUMBER
from comfy_serverless.workflows.reference import LIVE, Reference
from comfy_serverless.workflows.version import Version

#: Before the name of a workflow that the operator shares, whatever the owner has of that name.
SHARED: Final = "shared/"


@dataclass(frozen=True, slots=True)
class Meant:
    """What a request calls a workflow.

    Attributes:
        text: as it stands there.
        reference: what it means as a named workflow; None if it can only be a file in the image.
        is_shared: whether the operator's is meant, whatever the owner has.
    """

    text: str
    reference: Reference | None
    is_shared: bool = False

    @classmethod
    def of(cls, meant: Reference | str) -> Self:
        """Read it."""
        if isinstance(meant, Reference):
            return cls(meant.to_text(), meant)
        is_shared = meant.startswith(SHARED)
        try:
            return cls(meant, Reference.parse(meant.removeprefix(SHARED)), is_shared)
        except InvalidRequest:
            return cls(meant, None)

    @property
    def name(self) -> str:
        """The name alone, as far as it is one."""
        return self.text if self.reference is None else self.reference.name

    @property
    def file_text(self) -> str:
        """What a file would be called: names of files may have any letters."""
        return self.text.removesuffix(f"@{NUMBER}")

    @property
    def is_of_image(self) -> bool:
        """Whether the image's file is asked for by its number."""
        return self.reference is not None and self.reference.version == NUMBER

    @property
    def may_be_file(self) -> bool:
        """Whether a worker's image may have what is meant."""
        return not self.is_shared and (self.reference is None or self.is_of_image or self.reference.alias == LIVE)


def pinned_name(version: Version, owner: str) -> str:
    """What means this version, and no other, to this owner, whatever is pushed and moved meanwhile."""
    is_shared = version.owner == OPERATOR != owner and version.number != NUMBER
    return f"{SHARED if is_shared else ''}{version.name}@{version.number}"
