"""ComfyUI itself: from a tag, branch or commit to the commit, its version, and what it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfy_serverless.environments.lock_file import ComfyUI
from comfy_serverless.environments.locking import git, requirement_lines
from comfy_serverless.environments.locking.base import COMFYUI
from comfy_serverless.environments.locking.requirement_lines import Declarations
from comfy_serverless.errors import PackUnavailable
from comfy_serverless.redaction import redact_addresses

REPOSITORY: Final = "https://github.com/comfyanonymous/ComfyUI.git"
#: The variable that names another repository.
VARIABLE: Final = "COMFYUI_REPOSITORY"
_VERSION: Final = re.compile(r"""^__version__\s*=\s*["'](.+?)["']""", re.M)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ComfyUISource:
    """Where ComfyUI comes from.

    Attributes:
        repository: what the build fetches it from.
        at_hand: a ComfyUI on this machine, which is read instead of asking the repository.
    """

    repository: str = REPOSITORY
    at_hand: Path | None = None

    def fetch(self, ref: str, known: ComfyUI | None, scratch: Path) -> tuple[ComfyUI, Declarations]:
        """ComfyUI at a ref, and what it asks for.

        Args:
            known: what the lock at hand has for this ref; its commit is kept.
            scratch: an empty folder.

        Raises:
            PackUnavailable: the repository or the ref is not there, or is no ComfyUI.
        """
        wanted = known.commit if known is not None else ref
        folder = self._folder_for(wanted)
        where = str(folder) if folder is not None else redact_addresses(self.repository)
        try:
            if folder is not None:
                return self._read_at_hand(folder, ref, wanted, scratch)
            found = git.checkout(self.repository, wanted, scratch)
            return self._read(found.folder, ref, found.commit)
        except git.GitFailed as error:
            hint = self._hint(folder, wanted)
            raise PackUnavailable(
                f"ComfyUI {ref} (definition.baseComfyVersion) cannot be had: {where} {error}.{hint}"
            ) from error

    def _folder_for(self, wanted: str) -> Path | None:
        """The ComfyUI on this machine, if it says which commit is wanted; without a history it knows no tag."""
        folder = self.at_hand
        knows = folder is not None and ((folder / ".git").exists() or _COMMIT.fullmatch(wanted) is not None)
        return folder if knows else None

    def _hint(self, folder: Path | None, wanted: str) -> str:
        if folder is not None:
            return ""
        if self.at_hand is not None:
            return (
                f" {self.at_hand} has no .git, so it does not know which commit {wanted} is: set "
                f"definition.baseComfyVersion to a commit, or name a repository that can be reached with {VARIABLE}."
            )
        return f" Where it cannot be reached, give a checkout with --comfyui DIR, or another address with {VARIABLE}."

    def _read_at_hand(self, folder: Path, ref: str, wanted: str, scratch: Path) -> tuple[ComfyUI, Declarations]:
        if not (folder / ".git").exists():
            return self._read(folder, ref, wanted)
        commit = self._commit(folder, wanted)
        for name in ("comfyui_version.py", "requirements.txt"):
            (scratch / name).write_text(git.shown(folder, commit, name), encoding="utf-8")
        return self._read(scratch, ref, commit)

    def _commit(self, folder: Path, wanted: str) -> str:
        for name in (wanted, f"origin/{wanted}"):
            try:
                return git.commit_of(folder, name)
            except git.GitFailed:
                continue
        raise git.GitFailed(f"has no branch, tag or commit {wanted}: `git fetch` there first")

    def _read(self, folder: Path, ref: str, commit: str) -> tuple[ComfyUI, Declarations]:
        version = _VERSION.search(git.file_at(folder, "comfyui_version.py"))
        if version is None:
            raise git.GitFailed("has a comfyui_version.py without a version")
        git.file_at(folder, "requirements.txt")
        declared = requirement_lines.read(folder, COMFYUI)
        return ComfyUI(self.repository, ref, commit, version[1]), declared
