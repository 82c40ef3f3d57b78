"""Pin another ComfyUI: its commit in the Dockerfile, what it needs in requirements/comfyui.in. `make` locks that then.

    make comfyui-upgrade REF=v0.33.0        # a tag, a branch, or a commit in full

What ComfyUI's requirements.txt lists is taken over as it stands, but for what the image has from elsewhere (torch and
its kind) or has no use for (the web page). What follows in comfyui.in, of torch and of custom nodes, stays.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
REPOSITORY: Final = "https://github.com/comfyanonymous/ComfyUI.git"
#: requirements/torch.in has these; the other ones are ComfyUI's web page, which nobody looks at in a worker.
_TORCH: Final = frozenset({"torch", "torchvision", "torchaudio"})
_PAGE: Final = "comfyui-"
_BEGIN: Final = "# of ComfyUI "
_END: Final = "# of torch\n"
_FETCH_TIMEOUT_S: Final = 600.0


class NotUpgraded(Exception):
    """Nothing was changed; the message says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """A ComfyUI at one commit.

    Attributes:
        commit: in full, 40 hexadecimal digits.
        requirements: the text of its requirements.txt.
    """

    commit: str
    version: str
    day: datetime
    requirements: str

    @property
    def needs(self) -> list[str]:
        """Its requirements, one for each library that the image installs for it, sorted."""
        lines = (line.split("#")[0].strip() for line in self.requirements.splitlines())
        return sorted((line for line in lines if line and not _left_out(line)), key=str.lower)

    @property
    def when(self) -> str:
        """`0.33.0, as of 22 August 2026`."""
        return f"{self.version}, as of {self.day.day} {self.day:%B %Y}"


def fetched(repository: str, ref: str) -> Release:
    """Fetch one commit, without its history.

    Raises:
        NotUpgraded: the repository has no such ref or cannot be reached, or what is there is no ComfyUI.
    """
    with tempfile.TemporaryDirectory() as folder:
        _git(folder, "init", "-q")
        _git(folder, "remote", "add", "--", "origin", repository)
        # Two files are read, and only those are fetched where the server can leave out the others.
        _git(folder, "fetch", "-q", "--depth", "1", "--filter=blob:none", "--", "origin", ref)
        version = re.search(r'__version__ = "(.+)"', _file(folder, "comfyui_version.py", repository, ref))
        if version is None:
            raise NotUpgraded(f"{ref} of {repository} has a comfyui_version.py without a version")
        return Release(
            commit=_git(folder, "rev-parse", "FETCH_HEAD^{commit}").strip(),
            version=version[1],
            day=datetime.fromisoformat(_git(folder, "log", "-1", "--format=%cI", "FETCH_HEAD").strip()),
            requirements=_file(folder, "requirements.txt", repository, ref),
        )


def with_needs(text: str, release: Release) -> str:
    """requirements/comfyui.in with what a release needs in place of what the one before it did.

    Raises:
        NotUpgraded: the part that is replaced cannot be found.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise NotUpgraded(f"requirements/comfyui.in has no part between {_BEGIN!r} and {_END.strip()!r}")
    return f"{before}{begin}{release.when}\n" + "\n".join(release.needs) + f"\n\n{end}{after}"


def with_pin(text: str, release: Release) -> str:
    """The Dockerfile with a release's commit as the pinned one.

    Raises:
        NotUpgraded: the pin cannot be found.
    """
    text, said = re.subn(
        r"^(# ---- ComfyUI, at a pinned commit: ).*( ----)$", rf"\g<1>{release.when}\g<2>", text, flags=re.M
    )
    text, pinned = re.subn(r"^(ARG COMFYUI_PINNED=).*$", rf"\g<1>{release.commit}", text, flags=re.M)
    if (said, pinned) != (1, 1):
        raise NotUpgraded("the Dockerfile has no single `ARG COMFYUI_PINNED=…` below its comment")
    return text


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Upgrade; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make comfyui-upgrade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ref", help="a tag, a branch, or a commit in full")
    parser.add_argument("--repository", default=REPOSITORY, help="where ComfyUI comes from (default: %(default)s)")
    options = parser.parse_args(arguments)
    dockerfile, needs = root / "Dockerfile", root / "requirements" / "comfyui.in"
    try:
        release = fetched(options.repository, options.ref)
        changed = {
            dockerfile: with_pin(dockerfile.read_text(encoding="utf-8"), release),
            needs: with_needs(needs.read_text(encoding="utf-8"), release),
        }
    except NotUpgraded as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return 1
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    print(f"ComfyUI {release.when}: {release.commit}")
    return 0


def _left_out(requirement: str) -> bool:
    written = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    name = re.sub(r"[-_.]+", "-", written).lower()
    return name in _TORCH or name.startswith(_PAGE)


def _file(folder: str, name: str, repository: str, ref: str) -> str:
    try:
        return _git(folder, "show", f"FETCH_HEAD:{name}")
    except NotUpgraded as error:
        raise NotUpgraded(f"{ref} of {repository} is no ComfyUI: it has no {name}") from error


def _git(folder: str, *arguments: str) -> str:
    command = ["git", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotUpgraded(f"git cannot be run: {error}") from error
    if done.returncode:
        raise NotUpgraded(f"`git {' '.join(arguments)}`: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
