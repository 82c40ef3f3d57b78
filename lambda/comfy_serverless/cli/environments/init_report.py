"""Says what `comfy-serverless env init` has made: what is in the file, what is not and why, and what comes next."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from comfy_serverless.cli.habits import counted, one_line, print_table, say, size_in_words
from comfy_serverless.environments.build_file import BuildFile, overrides
from comfy_serverless.environments.build_file.values import PackSource
from comfy_serverless.environments.scan.merging import Change, in_words

_MOST_TOLD: Final = 40
_SOURCES: Final[tuple[tuple[PackSource, str], ...]] = (
    ("registry", "of the registry"),
    ("git", "of git"),
    ("local", "of this machine"),
    ("blob", "of Comfy's store"),
)
_DEFAULT: Final = Path("comfyui/comfy-build.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run has made.

    Attributes:
        install: the ComfyUI folder that was read, if one was.
        left_out: what could not be taken, and why; `remarks` is what else people should know.
    """

    path: Path
    build: BuildFile
    is_new: bool
    is_written: bool
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]
    left_out: tuple[str, ...]
    install: str | None

    @property
    def next_command(self) -> str:
        """What pins the file."""
        file = "" if self.path == _DEFAULT else f" --file {shlex.quote(str(self.path))}"
        has_local = self.install is not None and any(pack.source == "local" for pack in self.build.packs)
        folder = f" --comfyui {shlex.quote(str(self.install))}" if has_local else ""
        return f"comfy-serverless env lock{file}{folder}"

    def to_json(self) -> dict[str, Any]:
        """The outcome for programs."""
        return {
            "file": str(self.path),
            "written": self.is_written,
            "new": self.is_new,
            "base_comfy_version": self.build.base_comfy_version,
            "packs": [{**asdict(pack), "source": pack.source} for pack in self.build.packs],
            "models": [{**asdict(model), "source": model.source} for model in self.build.models],
            "overrides": list(overrides(self.build)),
            "changes": [asdict(change) for change in self.changes],
            "remarks": list(self.remarks),
            "left_out": list(self.left_out),
            "next": self.next_command,
        }


def tell(outcome: Outcome) -> None:
    """Say it to people: a table of the packs to stdout, the rest to stderr."""
    build = outcome.build
    if build.packs:
        print_table(["PACK", "FROM"], [[pack.name, in_words(pack)] for pack in build.packs], folds=["FROM"])
    if not outcome.is_new:
        _say_each("changed", [_in_words(change) for change in outcome.changes])
    _say_each("note", outcome.remarks)
    _say_each("left out", outcome.left_out)
    say(one_line(f"{outcome.path} {_what_was_done(outcome)}: {_contents(build)}."))
    if build.base_comfy_version is None:
        say("It names no version of ComfyUI, and cannot be locked so: write baseComfyVersion, or give --comfyui-ref.")
        say(f"Then: {outcome.next_command}")
    else:
        say(f"Next: {outcome.next_command}")


def _say_each(head: str, lines: tuple[str, ...] | list[str]) -> None:
    for line in lines[:_MOST_TOLD]:
        say(one_line(f"{head}: {line}"))
    if len(lines) > _MOST_TOLD:
        say(f"{head}: and {len(lines) - _MOST_TOLD} more (--json has all)")


def _what_was_done(outcome: Outcome) -> str:
    if outcome.is_written:
        return "is written" if outcome.is_new else "is updated"
    if not outcome.is_new and not outcome.changes:
        return "says all of that already"
    return "would be written" if outcome.is_new else "would be updated"


def _contents(build: BuildFile) -> str:
    sources = Counter(pack.source for pack in build.packs)
    packs = ", ".join(f"{sources[source]} {words}" for source, words in _SOURCES if sources[source])
    size_bytes = sum(model.size_bytes or 0 for model in build.models)
    size = f" ({size_in_words(size_bytes)})" if size_bytes else ""
    return ", ".join(
        [
            f"ComfyUI {build.base_comfy_version or '(which is not known)'}",
            counted(len(build.packs), "pack") + (f" ({packs})" if packs else ""),
            counted(len(build.models), "model") + size,
            counted(len(overrides(build)), "pip line"),
        ]
    )


def _in_words(change: Change) -> str:
    what = f"{change.kind} {change.name}" if change.kind != "key" else change.name
    return f"{what} is removed" if change.what == "removed" else f"{what}: {change.now}"
