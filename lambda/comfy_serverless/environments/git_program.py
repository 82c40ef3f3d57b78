"""How git is started: in the folder that is named, whatever a hook or somebody's settings have set.

A hook of git has variables that name its own repository, and `git -C` does not undo them: whatever is fetched would go
into that one. Standard library only: the image's build has the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: What `git rev-parse --local-env-vars` lists, but for settings (a proxy may be in those); and what `git init` obeys.
_OF_ANOTHER_REPOSITORY: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ATTR_SOURCE", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DEFAULT_HASH",
        "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE", "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_TEMPLATE_DIR", "GIT_WORK_TREE",
    }
)  # fmt: skip
#: Nobody is asked for a password, messages are English, large files of LFS are not fetched, and nothing is fetched
#: where only a question was asked.
_SET: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C.UTF-8",
}
#: A repository's own settings start no program.
HARMLESS: Final = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never")
#: The bytes of a checkout are those of the commit, whatever system's line ends somebody has set.
EXACT: Final = (
    *HARMLESS, "-c", "advice.detachedHead=false", "-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c",
    "core.symlinks=true", "-c", "core.attributesFile=/dev/null",
)  # fmt: skip


def command(folder: Path, settings: Sequence[str], *arguments: str) -> list[str]:
    """The command line of git in a folder, which may be somebody else's: of a container, or of another user."""
    return ["git", "-C", str(folder), "-c", f"safe.directory={folder.resolve()}", *settings, *arguments]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that git, or a program that starts git, is given."""
    return {name: value for name, value in variables.items() if name not in _OF_ANOTHER_REPOSITORY} | _SET
