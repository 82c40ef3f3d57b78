"""`more-requirements.txt` beside the build file: libraries that packs need and do not declare.

pipDependencies replaces what is asked for, and adds nothing (that is Comfy's meaning of it). This file adds: its lines
are pip's, and count as those of a pack do. It may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS
from comfy_serverless.environments.locking import requirement_lines
from comfy_serverless.environments.locking.requirement_lines import Declarations
from comfy_serverless.errors import NotLocked


@dataclass(frozen=True, slots=True)
class MoreRequirements:
    """The file's text; empty where there is no such file."""

    text: str = ""

    @classmethod
    def read(cls, folder: Path) -> MoreRequirements:
        """Read the file in a folder. Raises NotLocked if it is there and cannot be read."""
        path = folder / MORE_REQUIREMENTS
        try:
            return cls(requirement_lines.decoded(path.read_bytes()))
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise NotLocked(f"{path} cannot be read: {error.strerror}.") from error

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands in it, sorted, without comments: what a lock remembers of it."""
        return tuple(sorted(requirement_lines.lines_in(self.text)))

    @property
    def declared(self) -> Declarations:
        """What it asks for."""
        return requirement_lines.read_text(self.text, MORE_REQUIREMENTS, file=MORE_REQUIREMENTS)
